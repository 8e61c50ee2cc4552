package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.DriverTurn;
import io.r2dbc.postgresql.api.PostgresqlConnection;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import io.r2dbc.spi.R2dbcTimeoutException;
import io.r2dbc.spi.Result;
import java.time.Duration;
import java.util.List;
import java.util.stream.Collectors;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/**
 * What is done with one connection that listens.
 *
 * <p>The driver's notifications are subscribed to before LISTEN is sent, so that none comes too early, and with unbounded
 * demand: a subscriber of theirs that is short of demand ends them for all that follow on the same connection.
 */
final class ListenConnection {

    private final ConnectionScopes scopes;
    private final String sql;
    private final Duration heartbeat;
    private final Duration bound;

    ListenConnection(ConnectionScopes scopes, ListenOptions options, List<String> channels) {
        this.scopes = scopes;
        this.sql = channels.stream()
                .map(channel -> "listen " + Identifiers.quoted(channel, "channel"))
                .collect(Collectors.joining("; "));
        this.heartbeat = options.heartbeat();
        this.bound = heartbeat.isZero() ? scopes.options().acquireTimeout() : heartbeat;
    }

    /** Emits that it listens, then what it hears, and fails when the connection is lost. Completes when the scopes are drained. */
    Flux<Notification> notifications(Connection connection) {
        return DriverTurn.take(
                        connection,
                        "LISTEN",
                        turn -> Mono.fromSupplier(() -> {
                            turn.requireSession("listen with scopes whose factory connects to the database directly");
                            turn.destroyAtEnd();
                            return new Open(connection, turn);
                        }))
                .flatMapMany(Open::notifications)
                .takeUntilOther(scopes.draining());
    }

    private final class Open {

        private final Connection connection;
        private final DriverTurn turn;
        private final PostgresqlConnection driver;

        Open(Connection connection, DriverTurn turn) {
            this.connection = connection;
            this.turn = turn;
            this.driver = Unwrapped.postgresql(turn.connection());
        }

        Flux<Notification> notifications() {
            Sinks.Empty<Void> subscribed = Sinks.empty();
            Flux<Notification> heard = Flux.from(subscriber -> {
                driver.getNotifications()
                        .map(Open::received)
                        .concatWith(Mono.error(Open::closed))
                        .subscribe(subscriber);
                subscribed.tryEmitEmpty();
            });
            Flux<Notification> listening = subscribed
                    .asMono()
                    .then(answered(sql))
                    .<Notification>thenReturn(new Notification.Listening())
                    .concatWith(heartbeats());
            return Flux.merge(Integer.MAX_VALUE, listening, heard);
        }

        private static Notification received(io.r2dbc.postgresql.api.Notification told) {
            String payload = told.getParameter();
            return new Notification.Received(told.getName(), payload == null ? "" : payload, told.getProcessId());
        }

        private static Throwable closed() {
            return new R2dbcNonTransientResourceException("The connection that listens was closed");
        }

        private Flux<Notification> heartbeats() {
            return heartbeat.isZero()
                    ? Flux.never()
                    : Mono.delay(heartbeat).then(answered("select 1")).repeat().thenMany(Flux.empty());
        }

        /** Nothing is to be awaited on a connection that does not answer. */
        private Mono<Void> answered(String statement) {
            return Flux.from(connection.createStatement(statement).execute())
                    .flatMap(Result::getRowsUpdated)
                    .then()
                    .timeout(bound, Mono.error(() -> {
                        turn.condemn();
                        return new R2dbcTimeoutException(
                                "The server did not answer the connection that listens within " + bound);
                    }));
        }
    }
}
