package dev.r2dbcscope.testkit;

import dev.r2dbcscope.CurrentScope;
import dev.r2dbcscope.ScopeEvent;
import dev.r2dbcscope.ScopeListener;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryMetadata;
import io.r2dbc.spi.Wrapped;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Mono;
import reactor.util.context.ContextView;

/** A factory whose connections are counted; it hears of the scopes on it. */
final class WatchedConnectionFactory implements ConnectionFactory, Wrapped<ConnectionFactory>, ScopeListener {

    private final ConnectionFactory delegate;
    private final LeakAssertions leaks;

    WatchedConnectionFactory(ConnectionFactory delegate, LeakAssertions leaks) {
        this.delegate = delegate;
        this.leaks = leaks;
    }

    @Override
    public Publisher<? extends Connection> create() {
        String assembled = CodeSite.here();
        Publisher<? extends Connection> connections = delegate.create();
        return Mono.deferContextual(context -> handedOut(connections, asked(assembled, context)));
    }

    private HeldConnection asked(@Nullable String assembled, ContextView context) {
        return leaks.asked(
                this, assembled == null ? CodeSite.hereOrThread() : assembled, CurrentScope.acquiring(context));
    }

    /** As they come: a pool takes back what it has delivered when it is cancelled then, and a second one is no less a leak. */
    private Mono<Connection> handedOut(Publisher<? extends Connection> connections, HeldConnection first) {
        return Mono.<Connection>fromDirect(connections)
                .<Connection>map(connection -> new WatchedConnection(connection, leaks.given(first)))
                .doOnCancel(first::left)
                .doFinally(end -> first.refused());
    }

    @Override
    public ConnectionFactoryMetadata getMetadata() {
        return delegate.getMetadata();
    }

    @Override
    public ConnectionFactory unwrap() {
        return delegate;
    }

    @Override
    public void onEvent(ScopeEvent event) {
        leaks.onEvent(event);
    }

    @Override
    public String toString() {
        return "WatchedConnectionFactory[" + delegate + "]";
    }
}
