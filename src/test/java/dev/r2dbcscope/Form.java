package dev.r2dbcscope;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.util.Arrays;
import java.util.function.Function;
import java.util.stream.Stream;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

/**
 * One of the ways in which a scope can be made, and in which its connection can arrive: every contract holds for all of
 * them.
 *
 * @param shape the method of {@link ConnectionScopes}
 * @param late whether the connection arrives on another thread, after {@code subscribe} has returned
 */
record Form(Shape shape, boolean late) {

    /** The methods that make a scope. */
    enum Shape {
        WITH_CONNECTION(true, false) {
            @Override
            <T> Publisher<T> of(ConnectionScopes scopes, Function<Connection, Publisher<T>> body) {
                return scopes.withConnection(body);
            }
        },
        WITH_CONNECTION_MANY(false, false) {
            @Override
            <T> Publisher<T> of(ConnectionScopes scopes, Function<Connection, Publisher<T>> body) {
                return scopes.withConnectionMany(body);
            }
        },
        IN_TRANSACTION(true, true) {
            @Override
            <T> Publisher<T> of(ConnectionScopes scopes, Function<Connection, Publisher<T>> body) {
                return scopes.inTransaction(body);
            }
        },
        IN_TRANSACTION_MANY(false, true) {
            @Override
            <T> Publisher<T> of(ConnectionScopes scopes, Function<Connection, Publisher<T>> body) {
                return scopes.inTransactionMany(body);
            }
        },
        CONNECTED_MONO(true, false) {
            @Override
            <T> Publisher<T> of(ConnectionScopes scopes, Function<Connection, Publisher<T>> body) {
                return upstream(scopes, body).next().as(scopes::connected);
            }
        },
        CONNECTED_FLUX(false, false) {
            @Override
            <T> Publisher<T> of(ConnectionScopes scopes, Function<Connection, Publisher<T>> body) {
                return upstream(scopes, body).as(scopes::connected);
            }
        },
        TRANSACTIONAL_MONO(true, true) {
            @Override
            <T> Publisher<T> of(ConnectionScopes scopes, Function<Connection, Publisher<T>> body) {
                return upstream(scopes, body).next().as(scopes::transactional);
            }
        },
        TRANSACTIONAL_FLUX(false, true) {
            @Override
            <T> Publisher<T> of(ConnectionScopes scopes, Function<Connection, Publisher<T>> body) {
                return upstream(scopes, body).as(scopes::transactional);
            }
        };

        final boolean mono;
        final boolean transactional;

        Shape(boolean mono, boolean transactional) {
            this.mono = mono;
            this.transactional = transactional;
        }

        /** A scope in which the body runs with a connection. */
        abstract <T> Publisher<T> of(ConnectionScopes scopes, Function<Connection, Publisher<T>> body);

        private static <T> Flux<T> upstream(ConnectionScopes scopes, Function<Connection, Publisher<T>> body) {
            return Mono.<Connection>from(scopes.connectionFactory().create()).flatMapMany(body);
        }
    }

    static Stream<Form> all() {
        return Arrays.stream(Shape.values()).flatMap(shape -> Stream.of(new Form(shape, false), new Form(shape, true)));
    }

    /** The scope as a Flux, whatever its shape. */
    <T> Flux<T> of(ConnectionScopes scopes, Function<Connection, Publisher<T>> body) {
        return Flux.from(shape.of(scopes, body));
    }

    /** Lets the connections of the database arrive as this form says. */
    void stage(ProbeConnectionFactory database) {
        if (late) {
            database.on(
                    "create", () -> Mono.fromSupplier(database::newConnection).subscribeOn(Schedulers.parallel()));
        }
    }

    @Override
    public String toString() {
        return shape + (late ? ", connection arrives late" : "");
    }
}
