/**
 * Data moved in chunks: each chunk is one transaction, and where the job has got to is part of it.
 *
 * <p>{@link dev.r2dbcscope.etl.ChunkWriter} writes a {@code Publisher} chunk by chunk. {@link dev.r2dbcscope.etl.EtlJob} does so
 * from a {@link dev.r2dbcscope.etl.Source} that can be read from a position on, and goes on where it was after a crash. {@link
 * dev.r2dbcscope.etl.Lookup} looks up something for each row with a query for many.
 */
@NullMarked
package dev.r2dbcscope.etl;

import org.jspecify.annotations.NullMarked;
