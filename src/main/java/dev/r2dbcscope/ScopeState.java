package dev.r2dbcscope;

/** What a live scope is doing at the moment. */
public enum ScopeState {
    /** Asked for a connection and has not got one yet. */
    WAITING,
    /** Has a connection and prepares it: begins the transaction. */
    OPENING,
    /** Holds a connection on which nothing runs: the pipeline works on something else. */
    IDLE,
    /** A statement is with the database, and no row of it has arrived yet. */
    EXECUTING,
    /** Rows arrive. */
    STREAMING,
    /** Rows are ready, and the subscriber does not ask for them. */
    BLOCKED_BY_DEMAND,
    /** The pipeline has ended; the scope finishes what runs, commits or rolls back, and releases the connection. */
    EXITING
}
