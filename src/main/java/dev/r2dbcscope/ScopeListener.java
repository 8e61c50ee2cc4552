package dev.r2dbcscope;

/**
 * Hears of everything that happens to the scopes of a {@link ConnectionScopes}: the one interface from which leak
 * reports, metrics, tracing and inspection are made.
 *
 * <p>Events of one scope arrive in order, on whatever thread they happen on, which is often a connection's event loop:
 * implementations must be thread-safe and must not block. An exception that a listener throws is logged and changes
 * nothing.
 *
 * <p>Usually added to the options of scopes. A {@link io.r2dbc.spi.ConnectionFactory} that is itself a listener hears of all
 * scopes on it, and of those on factories that wrap it, before the listeners of their options.
 *
 * @see ScopeOptions#withListener(ScopeListener)
 */
@FunctionalInterface
public interface ScopeListener {

    /**
     * Called when something happened.
     *
     * @param event what happened
     */
    void onEvent(ScopeEvent event);
}
