package dev.r2dbcscope.testkit;

import dev.r2dbcscope.ConnectionScopes;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import java.util.Deque;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.util.context.ContextView;

/**
 * Where the statements of a logical connection are executed: in the sandbox's transaction itself, among those of others, or in
 * a section of it that the connection has for itself.
 */
final class Place {

    enum Kind {
        /** The sandbox's transaction: what every connection begins with. */
        SHARED,
        /** A section for what the connection sets in its session: each statement still stands for itself. */
        PINNED,
        /** A section for a transaction of the application. */
        TRANSACTION
    }

    private final Kind kind;
    private final @Nullable Place around;
    private volatile HeldSection section;
    private final Deque<Supplier<? extends Publisher<?>>> atCommit = new ConcurrentLinkedDeque<>();
    private final Sinks.One<ContextView> ready = Sinks.one();
    private final @Nullable IsolationLevel isolation;

    private Place(Kind kind, @Nullable Place around, HeldSection section, @Nullable IsolationLevel isolation) {
        this.kind = kind;
        this.around = around;
        this.section = section;
        this.isolation = isolation;
    }

    static Place shared(HeldSection transaction) {
        return new Place(Kind.SHARED, null, transaction, null);
    }

    Place pinned() {
        return new Place(Kind.PINNED, this, new HeldSection(), null);
    }

    Place transaction(@Nullable IsolationLevel isolation) {
        return new Place(Kind.TRANSACTION, this, new HeldSection(), isolation);
    }

    boolean isTransaction() {
        return kind == Kind.TRANSACTION;
    }

    boolean isShared() {
        return kind == Kind.SHARED;
    }

    /** The isolation level that the transaction was begun with. */
    @Nullable
    IsolationLevel isolation() {
        return isolation;
    }

    /** The place that this one is a section of. */
    Place around() {
        return around == null ? this : around;
    }

    HeldSection section() {
        return section;
    }

    /** The connection that its own requests go to. */
    @Nullable
    Connection connection() {
        return section.connection();
    }

    /** Takes the section, when its turn has come. */
    Mono<ContextView> take(ConnectionScopes scopes) {
        return around().context().flatMap(context -> section.begin(scopes, context));
    }

    /** Takes it inside another place than the one it is a section of, after it could not be taken there. */
    Mono<ContextView> takeInside(Place other, ConnectionScopes scopes) {
        HeldSection inside = new HeldSection();
        section = inside;
        return other.context().flatMap(context -> inside.begin(scopes, context));
    }

    /** Has something done before the transaction is committed; what came later is done first. */
    void atCommit(Supplier<? extends Publisher<?>> step) {
        atCommit.push(step);
    }

    /** What is to be done before the transaction is committed. */
    Iterable<Supplier<? extends Publisher<?>>> atCommit() {
        return atCommit;
    }

    /** Lets statements in. */
    void ready(ContextView context) {
        ready.tryEmitValue(context);
    }

    /** Lets none in. */
    void failed(Throwable error) {
        ready.tryEmitError(error);
    }

    /** The Context for its statements, which come in the order in which they asked for it. */
    Mono<ContextView> context() {
        return kind == Kind.SHARED ? section.context() : ready.asMono();
    }
}
