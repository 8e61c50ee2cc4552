package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.testkit.FaultyProxy;
import dev.r2dbcscope.testkit.NetworkFault;
import dev.r2dbcscope.testkit.NetworkTrigger;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import java.time.Duration;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Mono;

/** The README's example of the test kit's proxy. */
class ReadmeTestkitProxyIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    private static ConnectionFactory connectTo(String host, int port) {
        return new PostgresqlConnectionFactory(
                Postgres.configuration().host(host).port(port).build());
    }

    private static Mono<Long> insertPayment(Connection connection) {
        return Rows.update(connection, "insert into proxied_payments values (1)")
                .next();
    }

    @Test
    void aCommitWhoseAnswerIsLost() {
        Postgres.execute("create table proxied_payments (id int)");
        // example: faulty proxy
        try (FaultyProxy network = FaultyProxy.to("127.0.0.1", Postgres.port())) {
            ConnectionScopes scopes = ConnectionScopes.of(connectTo(network.host(), network.port()));
            network.await(NetworkTrigger.clientSends("COMMIT"))
                    .doOnSuccess(sent -> network.strikeWhen(NetworkTrigger.afterServerBytes(0), NetworkFault.CUT))
                    .subscribe();

            assertThatThrownBy(() -> scopes.inTransaction(c -> insertPayment(c)).block())
                    .isInstanceOf(CommitOutcomeUnknownException.class);
        }
        // end
        assertThat(Postgres.number("select count(*) from proxied_payments")).isEqualTo(1);
    }

    @Test
    void roundTrips() {
        // example: round trips
        try (FaultyProxy network = FaultyProxy.to("127.0.0.1", Postgres.port())) {
            network.latency(Duration.ofMillis(10), Duration.ofMillis(10));
            ConnectionScopes scopes = ConnectionScopes.of(connectTo(network.host(), network.port()));
            long trips = scopes.inTransaction(c -> {
                        long before = network.roundTrips();
                        return Rows.ints(c, "select 1").then(Mono.fromSupplier(() -> network.roundTrips() - before));
                    })
                    .block(LONG);
            assertThat(trips).isEqualTo(1);
        }
        // end
    }
}
