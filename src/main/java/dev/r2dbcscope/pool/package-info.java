/** What scopes know of r2dbc-pool. Needs {@code io.r2dbc:r2dbc-pool} on the class path. */
@NullMarked
package dev.r2dbcscope.pool;

import org.jspecify.annotations.NullMarked;
