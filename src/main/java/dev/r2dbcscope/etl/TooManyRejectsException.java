package dev.r2dbcscope.etl;

import io.r2dbc.spi.R2dbcNonTransientException;

/** More rows were rejected than {@link Rejects} allows. The chunk in which they became too many is rolled back. */
public final class TooManyRejectsException extends R2dbcNonTransientException {

    private static final long serialVersionUID = 1L;

    /** How many were rejected. */
    private final long rejected;

    /** Of how many. */
    private final long rows;

    TooManyRejectsException(long rejected, long rows, String bound, Reject<?> last) {
        super(rejected + " of " + rows + " rows were rejected, more than " + bound + " allows; the last of them is row "
                + last.number() + (last.sqlState() == null ? "" : ", SQLSTATE " + last.sqlState())
                + (last.constraint() == null ? "" : ", constraint \"" + last.constraint() + "\"")
                + (last.column() == null ? "" : ", column \"" + last.column() + "\""));
        this.rejected = rejected;
        this.rows = rows;
    }

    /**
     * Returns how many rows were rejected.
     *
     * @return the number, with those of the chunk that was rolled back
     */
    public long rejected() {
        return rejected;
    }

    /**
     * Returns of how many rows they were.
     *
     * @return the number, with those of the chunk that was rolled back
     */
    public long rows() {
        return rows;
    }
}
