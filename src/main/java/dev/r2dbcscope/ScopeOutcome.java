package dev.r2dbcscope;

/** How the work of a scope ended. */
public enum ScopeOutcome {
    /** The pipeline completed; in a transaction, the scope commits. */
    COMPLETED,
    /** The pipeline failed; in a transaction, the scope rolls back. */
    FAILED,
    /** The subscriber cancelled before the pipeline had ended; in a transaction, {@link OnCancel} says what the scope does. */
    CANCELLED
}
