package dev.r2dbcscope.etl;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.Await;
import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.OwnPostgres;
import dev.r2dbcscope.ScopeOptions;
import dev.r2dbcscope.postgresql.UnnestWriter;
import dev.r2dbcscope.testkit.FaultyProxy;
import dev.r2dbcscope.testkit.NetworkFault;
import dev.r2dbcscope.testkit.NetworkTrigger;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.r2dbc.spi.Result;
import java.io.IOException;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

/** A job on a database that is restarted and crashes, and on a network that is cut at every step of a chunk. */
class EtlFaultsIT {

    private static final Duration BOUND = Duration.ofSeconds(120);
    private static final int ROWS = 2_000;

    private final OwnPostgres server = new OwnPostgres();
    private final FaultyProxy network = FaultyProxy.to("127.0.0.1", server.port());
    private final ConnectionPool direct = pool(server.port());
    private final ConnectionPool proxied = pool(network.port());
    private final ConnectionScopes scopes = scopes(direct);
    private final ConnectionScopes target = scopes(proxied);

    EtlFaultsIT() {
        scopes.withConnection(c -> Flux.from(c.createStatement("create table fault_target (id int)")
                                .execute())
                        .flatMap(Result::getRowsUpdated)
                        .then())
                .block(BOUND);
        Checkpoints.defaults().create(scopes).block(BOUND);
    }

    @AfterEach
    void stop() throws IOException {
        proxied.disposeLater().onErrorComplete().block(BOUND);
        direct.disposeLater().onErrorComplete().block(BOUND);
        network.close();
        server.close();
    }

    private static ConnectionScopes scopes(ConnectionPool pool) {
        return ConnectionScopes.of(pool)
                .with(ScopeOptions.defaults()
                        .withAcquireTimeout(Duration.ofSeconds(5))
                        .withReleaseTimeout(Duration.ofSeconds(2)));
    }

    private static ConnectionPool pool(int port) {
        return new ConnectionPool(ConnectionPoolConfiguration.builder(
                        new PostgresqlConnectionFactory(PostgresqlConnectionConfiguration.builder()
                                .host("localhost")
                                .port(port)
                                .username("postgres")
                                .password("postgres")
                                .database("postgres")
                                .connectTimeout(Duration.ofSeconds(2))
                                .build()))
                .initialSize(0)
                .maxSize(2)
                .build());
    }

    private static EtlJob<Integer> job(Duration eachChunk, boolean takeover) {
        UnnestWriter<Integer> writer =
                UnnestWriter.<Integer>into("fault_target").column("id", "int", row -> row);
        ChunkSink<Integer> sink = (connection, rows) -> writer.write(connection, Flux.fromIterable(rows))
                .delayUntil(count -> eachChunk.isZero() ? Mono.empty() : Mono.delay(eachChunk));
        return EtlJob.of(
                        "faults",
                        Source.of(Flux.range(1, ROWS)),
                        ChunkWriter.to(sink)
                                .withMaxRows(100)
                                .withRetries(60, Duration.ofMillis(50), Duration.ofSeconds(1)))
                .withTakeover(takeover);
    }

    private void assertTarget() {
        Await.until(() -> target.live().isEmpty(), () -> "live: " + target.live());
        assertThat(scopes.withConnectionMany(c -> Flux.from(c.createStatement("select id from fault_target order by id")
                                        .execute())
                                .flatMap(result -> result.map(row -> row.get(0, Integer.class))))
                        .collectList()
                        .block(BOUND))
                .isEqualTo(Flux.range(1, ROWS).collectList().block(BOUND));
    }

    @ParameterizedTest
    @CsvSource({"false, false", "false, true", "true, false", "true, true"})
    void everyRowOnceThoughTheServerEndsInBetween(boolean crash, boolean takeover) {
        AtomicInteger chunks = new AtomicInteger();
        Mono<Void> running = job(Duration.ofMillis(20), takeover)
                .run(scopes)
                .doOnNext(chunk -> chunks.incrementAndGet())
                .then()
                .cache();
        Disposable subscription = running.subscribe();
        for (int i = 1; i <= 3; i++) {
            int seen = 4 * i;
            Await.until(() -> chunks.get() >= seen, () -> "chunks: " + chunks);
            if (crash) {
                server.crash();
            } else {
                server.restart();
            }
        }
        running.block(BOUND);
        subscription.dispose();
        assertTarget();
    }

    /** Each of them more than once in 20 chunks: the words are in what every chunk sends, or in the answers to it. */
    @ParameterizedTest
    @CsvSource({
        "BEGIN, false", "update, false", "insert, false", "COMMIT, false",
        "BEGIN, true", "update, true", "insert, true", "COMMIT, true",
    })
    void everyRowOnceThoughTheNetworkIsCut(String word, boolean answer) {
        AtomicInteger strikes = new AtomicInteger();
        NetworkTrigger trigger = answer
                ? NetworkTrigger.serverSends(word.equals("update") ? "UPDATE" : word.equals("insert") ? "INSERT" : word)
                : NetworkTrigger.clientSends(word);
        Disposable striking = Mono.defer(() -> network.strikeWhen(trigger, NetworkFault.CUT))
                .doOnSuccess(struck -> strikes.incrementAndGet())
                .delayElement(Duration.ofMillis(1))
                .then(Mono.delay(Duration.ofMillis(150), Schedulers.boundedElastic()))
                .repeat(3)
                .subscribe();
        try {
            job(Duration.ofMillis(10), false).run(target).then().block(BOUND);
        } finally {
            striking.dispose();
        }
        assertThat(strikes.get()).isPositive();
        assertTarget();
    }

    @Test
    void aSlowNetworkSlowsTheSourceDown() {
        network.bandwidth(20_000, 1_000_000);
        AtomicInteger ahead = new AtomicInteger();
        AtomicInteger most = new AtomicInteger();
        UnnestWriter<Integer> writer =
                UnnestWriter.<Integer>into("fault_target").column("id", "int", row -> row);

        Long rows = EtlJob.of(
                        "slow",
                        Source.of(Flux.range(1, ROWS)
                                .doOnNext(row -> most.accumulateAndGet(ahead.incrementAndGet(), Math::max))),
                        ChunkWriter.to(ChunkSink.of(writer)).withMaxRows(100).withPrefetch(32))
                .run(target)
                .doOnNext(chunk -> ahead.addAndGet((int) -chunk.rows()))
                .reduce(0L, (sum, chunk) -> sum + chunk.rows())
                .block(BOUND);

        assertThat(rows).isEqualTo(ROWS);
        assertThat(most.get()).as("rows read and not committed").isLessThanOrEqualTo(3 * 100 + 32);
        assertTarget();
    }
}
