package dev.r2dbcscope;

/** What a statement does to its transaction or its session, as far as its text tells; the weightiest first. */
public enum SqlEffect {
    /** It begins or ends a transaction, or changes how that one ends. */
    TRANSACTION,

    /** It listens for notifications. */
    LISTEN,

    /** It sets a savepoint, releases one, or rolls back to one. */
    SAVEPOINT,

    /** It changes something of its session that outlives the statement and its transaction, such as a setting. */
    SESSION,

    /** None of these. */
    DATA
}
