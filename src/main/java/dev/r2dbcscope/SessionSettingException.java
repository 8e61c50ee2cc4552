package dev.r2dbcscope;

import java.util.Collection;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A scope could not be given its {@link SessionSettings}: a value was not in the Reactor Context, the database refused one,
 * or it is a database whose {@link Dialect} knows no session settings. The scope's pipeline did not start, none of the
 * settings is left on the connection, and the cause is the database's own error, if it was one.
 */
public final class SessionSettingException extends ScopeException {

    private static final long serialVersionUID = 1L;

    /** The keys of the settings. */
    private final String[] keys;

    private SessionSettingException(
            String problem, Collection<String> keys, ScopeLabel scope, @Nullable Throwable cause) {
        super(problem, scope, null, cause);
        this.keys = keys.toArray(String[]::new);
    }

    static SessionSettingException unresolved(String key, String what, ScopeLabel scope, @Nullable Throwable cause) {
        return new SessionSettingException(
                "No value for the session setting " + key + ": the function given to SessionSettings.fromContext "
                        + what
                        + "; write what it reads into the Reactor Context downstream of the scope (contextWrite)",
                List.of(key),
                scope,
                cause);
    }

    static SessionSettingException refused(
            Collection<String> keys, @Nullable String sqlState, ScopeLabel scope, Throwable cause) {
        return new SessionSettingException(
                "The database refused " + (keys.size() == 1 ? "the session setting " : "one of the session settings ")
                        + String.join(", ", keys) + " (SQLSTATE " + sqlState
                        + "), none of which is set now; its own error, which is the cause, says why",
                keys,
                scope,
                cause);
    }

    static SessionSettingException unsupported(Collection<String> keys, ScopeLabel scope) {
        return new SessionSettingException(
                "The session settings " + String.join(", ", keys) + " cannot be set: no dialect for this database knows"
                        + " session settings; use a scope without them, or add a Dialect that does",
                keys,
                scope,
                null);
    }

    /**
     * Returns which settings could not be made. The database refuses all of a scope's settings together.
     *
     * @return the keys, in no particular order; never values
     */
    public List<String> keys() {
        return List.of(keys);
    }
}
