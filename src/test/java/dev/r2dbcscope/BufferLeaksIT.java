package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.postgresql.CopyException;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import java.time.Duration;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.springframework.r2dbc.core.DatabaseClient;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/**
 * Rows of the driver are slices of Netty buffers, which the scope keeps for results that are not read at once. Netty
 * tells of every buffer that was lost without having been released.
 */
class BufferLeaksIT {

    private static final Duration BOUND = Duration.ofSeconds(60);
    private static final int TIMES = 15;

    private final ConnectionPool pool = Postgres.pool(1);
    private final ConnectionScopes scopes = ConnectionScopes.of(pool);

    @BeforeAll
    static void forgetWhatOthersLost() throws InterruptedException {
        LostBuffers.letBygonesBeBygones();
    }

    @RegisterExtension
    final LostBuffers lost = new LostBuffers();

    @AfterEach
    void close() {
        pool.disposeLater().block(BOUND);
    }

    private static Flux<? extends Result> rows(Connection connection, int rows) {
        return Flux.from(connection
                .createStatement("select n, repeat('x', 100) from generate_series(1, $1) n")
                .bind(0, rows)
                .execute());
    }

    private static Flux<Integer> read(Result result) {
        return Flux.from(result.map((row, metadata) -> row.get(0, Integer.class)));
    }

    @Test
    void unreadResults() {
        for (int rows : new int[] {1, 15, 16, 17, 500}) {
            Flux.range(0, TIMES)
                    .concatMap(i -> scopes.withConnection(
                            connection -> rows(connection, rows).then(Mono.just(i))))
                    .blockLast(BOUND);
            Flux.range(0, TIMES)
                    .concatMap(i -> scopes.inTransaction(connection -> rows(connection, rows)
                            .collectList()
                            .then(rows(connection, rows).next())
                            .then(Rows.ints(connection, "select 1").next())))
                    .blockLast(BOUND);
        }
        assertThat(lost.reports()).isEmpty();
    }

    @Test
    void resultsThatAreReadLater() {
        for (int rows : new int[] {1, 16, 17, 500}) {
            Flux.range(0, TIMES)
                    .concatMap(i -> scopes.withConnectionMany(connection -> rows(connection, rows)
                            .collectList()
                            .delayUntil(results -> Rows.ints(connection, "select 1"))
                            .flatMapIterable(results -> results)
                            .concatMap(BufferLeaksIT::read)))
                    .blockLast(BOUND);
            Flux.range(0, TIMES)
                    .concatMap(i -> scopes.withConnectionMany(connection -> rows(connection, rows)
                            .collectList()
                            .flatMapIterable(results -> results)
                            .concatMap(result -> result.flatMap(segment -> Mono.just(1)))
                            .take(3)))
                    .blockLast(BOUND);
        }
        assertThat(lost.reports()).isEmpty();
    }

    @Test
    void cancelledResults() {
        Flux.range(0, TIMES)
                .concatMap(i -> scopes.withConnectionMany(
                                connection -> rows(connection, 500).concatMap(BufferLeaksIT::read))
                        .take(i + 1))
                .blockLast(BOUND);
        Flux.range(0, TIMES)
                .concatMap(i -> scopes.withConnectionMany(connection -> rows(connection, 500)
                                .collectList()
                                .flatMapIterable(results -> results)
                                .concatMap(BufferLeaksIT::read))
                        .take(i + 1))
                .blockLast(BOUND);
        Flux.range(0, TIMES)
                .concatMap(i -> scopes.inTransactionMany(connection -> rows(connection, 500)
                                .concatMap(result -> result.flatMap(segment -> Rows.ints(connection, "select 2"))))
                        .take(i + 1))
                .blockLast(BOUND);
        scopes.drain(BOUND).block(BOUND);
        assertThat(lost.reports()).isEmpty();
    }

    @Test
    void springsClientThatIsLeft() {
        DatabaseClient client = DatabaseClient.create(scopes.connectionFactory());
        Mono<Integer> request = client.sql("select n, pg_sleep(0.001) from generate_series(1, 3) n")
                .map(row -> row.get(0, Integer.class))
                .first()
                .as(scopes::connected);
        Flux.range(0, 20 * TIMES)
                .concatMap(i -> i % 3 == 0
                        ? request.then()
                        : request.takeUntilOther(Mono.delay(Duration.ofNanos(20_000L * i)))
                                .then())
                .blockLast(BOUND);
        scopes.drain(BOUND).block(BOUND);
        assertThat(lost.reports()).isEmpty();
    }

    @Test
    void overflowedResults() {
        ConnectionScopes narrow = scopes.with(ScopeOptions.defaults().withMaxBufferedRows(20));
        Flux.range(0, TIMES)
                .concatMap(i -> narrow.withConnectionMany(connection -> rows(connection, 600)
                                .collectList()
                                .flatMapIterable(results -> results)
                                .concatMap(result ->
                                        Rows.ints(connection, "select 1").thenMany(read(result))))
                        .onErrorResume(NestedReadOverflowException.class, e -> Mono.just(-1)))
                .blockLast(BOUND);
        Flux.range(0, TIMES)
                .concatMap(i -> narrow.withConnectionMany(connection -> rows(connection, 600)
                                .concatMap(result -> result.flatMap(segment -> Mono.just(1)))
                                .concatMap(n -> Rows.ints(connection, "select 1"), 1))
                        .onErrorResume(NestedReadOverflowException.class, e -> Mono.just(-1)))
                .blockLast(BOUND);
        assertThat(lost.reports()).isEmpty();
    }

    /**
     * When the server refuses a row while the driver waits to write more, the driver itself loses the few bytes of the
     * next message ({@code CopyData.encode} of r2dbc-postgresql 1.1.1), so the refused rows fit into one chunk here.
     */
    @Test
    void copies() {
        Postgres.execute("drop table if exists leaks");
        Postgres.execute("create table leaks (id int primary key, note text)");
        CopyIn<Integer> rows = CopyIn.<Integer>into("leaks")
                .column("id", CopyType.INTEGER, i -> i)
                .column("note", CopyType.TEXT, i -> "x".repeat(100));
        Flux.range(0, TIMES)
                .concatMap(i -> rows.write(scopes, Flux.range(i * 2000, 2000)))
                .blockLast(BOUND);
        Flux.range(0, TIMES)
                .concatMap(i -> rows.write(
                                scopes,
                                Flux.range(1_000_000, 2000 * i)
                                        .concatWith(Mono.error(new IllegalStateException("own"))))
                        .onErrorResume(IllegalStateException.class, e -> Mono.just(-1L)))
                .blockLast(BOUND);
        Flux.range(0, TIMES)
                .concatMap(i -> rows.write(scopes, Flux.range(1_000_000, 20 * i).concatWith(Flux.range(1, 100)))
                        .onErrorResume(CopyException.class, e -> Mono.just(-1L)))
                .blockLast(BOUND);
        Flux.range(0, TIMES)
                .concatMap(i -> {
                    Sinks.Empty<Void> enough = Sinks.empty();
                    return rows.write(scopes, Flux.range(1_000_000, 1_000_000).doOnNext(n -> {
                                if (n == 1_000_000 + 3000 * i) {
                                    enough.tryEmitEmpty();
                                }
                            }))
                            .takeUntilOther(enough.asMono());
                })
                .blockLast(BOUND);
        scopes.drain(BOUND).block(BOUND);
        assertThat(Postgres.number("select count(*) from leaks")).isEqualTo(2000L * TIMES);
        assertThat(lost.reports()).isEmpty();
    }
}
