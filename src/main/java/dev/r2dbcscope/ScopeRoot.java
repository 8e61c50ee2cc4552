package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.Wrapped;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import reactor.util.context.Context;
import reactor.util.context.ContextView;

/** What all scopes on one connection factory share. */
final class ScopeRoot {

    private static final List<Dialect> DIALECTS = Services.load(Dialect.class);

    private static final Object INNERMOST = new Object() {
        @Override
        public String toString() {
            return "the innermost connection scope";
        }
    };

    private final ConnectionFactory factory;
    private final Object hook = new Object();
    private final Key key;
    private final LiveScopes live = new LiveScopes();
    private final FactorySupply supply;
    private final Pool pool;
    private final List<ScopeListener> listeners;
    private final StatementCacheCheck statementCacheCheck = new StatementCacheCheck();
    private final RoundTrips roundTrips = new RoundTrips();

    /** Scopes of the same database find each other in the Context: by the identity of the innermost factory. */
    private record Key(ConnectionFactory factory) {
        @Override
        public boolean equals(@Nullable Object other) {
            return other instanceof Key key && key.factory == factory;
        }

        @Override
        public int hashCode() {
            return System.identityHashCode(factory);
        }
    }

    ScopeRoot(ConnectionFactory factory) {
        this.factory = factory;
        this.key = new Key(unwrapped(factory));
        this.supply = new FactorySupply(factory);
        this.pool = Pool.of(factory);
        this.listeners = listeners(factory);
    }

    ConnectionFactory factory() {
        return factory;
    }

    LiveScopes live() {
        return live;
    }

    FactorySupply supply() {
        return supply;
    }

    Pool pool() {
        return pool;
    }

    /** The listeners that the factory brings along, and then the given ones. */
    List<ScopeListener> withItsListeners(List<ScopeListener> more) {
        return listeners.isEmpty()
                ? more
                : Stream.concat(listeners.stream(), more.stream()).toList();
    }

    StatementCacheCheck statementCacheCheck() {
        return statementCacheCheck;
    }

    RoundTrips roundTrips() {
        return roundTrips;
    }

    /** A Context in which scopes of this factory find none that they could join. */
    Context apart(Context context) {
        return context.delete(key);
    }

    /** The innermost scope of this factory. */
    @Nullable
    Scope current(ContextView context) {
        return context.getOrDefault(key, null);
    }

    /** The innermost scope of any factory. */
    static @Nullable Scope innermost(ContextView context) {
        return context.getOrDefault(INNERMOST, null);
    }

    Context with(Scope scope, Context context) {
        return context.put(key, scope).put(INNERMOST, scope);
    }

    /** Marks the Context of what a scope does after its end, which belongs to it as far as a shutdown is concerned. */
    Context afterTheEnd(ContextView context) {
        return Context.of(context).put(hook, true);
    }

    /** Whether a new scope belongs to one that lives, so that a shutdown waits for it instead of refusing it. */
    boolean belongsToALiveOne(ContextView context) {
        return current(context) != null || context.hasKey(hook);
    }

    /** What is left for code that runs after a cancel, which ends the scopes around it as well. */
    Context withoutEnded(Context context) {
        return withoutEnded(INNERMOST, withoutEnded(key, context));
    }

    private static Context withoutEnded(Object key, Context context) {
        Scope known = context.getOrDefault(key, null);
        Scope open = known == null ? null : known.nearestOpen();
        if (open == known) {
            return context;
        }
        return open == null ? context.delete(key) : context.put(key, open);
    }

    static Dialect dialect(Connection physical) {
        if (physical instanceof SharedConnection shared) {
            return new SharedDialect(dialect(FactorySupply.physical(shared.shared())));
        }
        for (Dialect dialect : DIALECTS) {
            if (dialect.supports(physical)) {
                return dialect;
            }
        }
        return PlainDialect.INSTANCE;
    }

    private static List<ScopeListener> listeners(ConnectionFactory factory) {
        List<ScopeListener> found = new ArrayList<>();
        ConnectionFactory layer = factory;
        while (true) {
            if (layer instanceof ScopeListener listener) {
                found.add(listener);
            }
            if (!(layer instanceof Wrapped<?> wrapped && wrapped.unwrap() instanceof ConnectionFactory inner)) {
                return List.copyOf(found);
            }
            layer = inner;
        }
    }

    private static ConnectionFactory unwrapped(ConnectionFactory factory) {
        ConnectionFactory innermost = factory;
        while (innermost instanceof Wrapped<?> wrapped && wrapped.unwrap() instanceof ConnectionFactory inner) {
            innermost = inner;
        }
        return innermost;
    }
}
