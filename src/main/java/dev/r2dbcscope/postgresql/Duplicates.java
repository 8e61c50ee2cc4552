package dev.r2dbcscope.postgresql;

/**
 * What becomes of rows that have the same key and are written by the same statement. PostgreSQL refuses to update one row
 * twice in one statement, so all but one of them are left out before.
 *
 * @see OnConflict#withDuplicates(Duplicates)
 */
public enum Duplicates {
    /** The last one counts, as if the rows were written one after the other. */
    KEEP_LAST,

    /** The first one counts. */
    KEEP_FIRST,

    /** The write fails with a {@link BulkWriteException} that has SQLSTATE 21000. */
    FAIL
}
