package dev.r2dbcscope;

/**
 * What the database keeps for each connection, set for the length of a scope. Immutable and thread-safe.
 *
 * @see ScopeOptions#withSettings(SessionSettings)
 */
public final class SessionSettings {

    private static final SessionSettings NONE = new SessionSettings();

    private SessionSettings() {}

    /**
     * Returns no settings.
     *
     * @return no settings
     */
    public static SessionSettings none() {
        return NONE;
    }
}
