package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcDataIntegrityViolationException;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Result;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.function.Function;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The driver puts many errors into the Result, where code that does not read it would never meet them. */
class UnreadErrorsIT {

    private static final Duration LONG = Duration.ofSeconds(60);
    private static final String DUPLICATE = "insert into unread_errors values (1)";
    private static final String FAILS_AT_ROW_500 = "select 1 / ($1::int - x) from generate_series(1, 1000) x";

    private final WatchedPool pool = WatchedPool.of(1);
    private final ConnectionScopes scopes = pool.scopes;

    private enum Failing {
        LITERAL(c -> c.createStatement(DUPLICATE).execute()),
        BOUND(c -> c.createStatement("insert into unread_errors values ($1)")
                .bind(0, 1)
                .execute()),
        LATER_OF_SEVERAL(c -> c.createStatement("select 1; select 2; " + DUPLICATE + "; select 3")
                .execute()),
        BATCH(c ->
                c.createBatch().add("select 1").add(DUPLICATE).add("select 2").execute());

        private final Function<Connection, Publisher<? extends Result>> execution;

        Failing(Function<Connection, Publisher<? extends Result>> execution) {
            this.execution = execution;
        }

        Flux<Result> on(Connection connection) {
            return Flux.from(execution.apply(connection));
        }
    }

    @BeforeEach
    void createTable() {
        Postgres.execute("create table unread_errors (id int primary key); insert into unread_errors values (1)");
    }

    @AfterEach
    void theConnectionIsWhole() {
        pool.assertWhole();
        assertThat(pool.destroyed()).isZero();
        pool.close();
        Postgres.execute("drop table unread_errors");
    }

    @ParameterizedTest
    @EnumSource
    void reachWhoeverWaitsForTheCompletionOnly(Failing failing) {
        assertThatThrownBy(() -> scopes.withConnection(c -> failing.on(c).then().thenReturn("success"))
                        .block(LONG))
                .isInstanceOf(R2dbcDataIntegrityViolationException.class);
    }

    @ParameterizedTest
    @EnumSource
    void reachWhoeverCountsTheResultsOnly(Failing failing) {
        assertThatThrownBy(
                        () -> scopes.withConnection(c -> failing.on(c).count()).block(LONG))
                .isInstanceOf(R2dbcDataIntegrityViolationException.class);
    }

    @ParameterizedTest
    @EnumSource
    void rollTheTransactionBack(Failing failing) {
        assertThatThrownBy(() -> scopes.inTransaction(c -> Rows.update(c, "insert into unread_errors values (2)")
                                .then(failing.on(c).then())
                                .thenReturn("committed"))
                        .block(LONG))
                .isInstanceOf(R2dbcDataIntegrityViolationException.class);
        assertThat(Postgres.number("select count(*) from unread_errors where id = 2"))
                .isZero();
    }

    @ParameterizedTest
    @EnumSource
    void canBeCaughtAndTheScopeGoesOn(Failing failing) {
        assertThat(scopes.withConnection(c -> failing.on(c)
                                .then()
                                .onErrorResume(R2dbcDataIntegrityViolationException.class, e -> Mono.empty())
                                .thenMany(Rows.ints(c, "select 42"))
                                .next())
                        .block(LONG))
                .isEqualTo(42);
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 10, 17, 500, 1000})
    void reachWhoeverWaitsWhenTheyComeAtALaterRow(int row) {
        assertThatThrownBy(() -> scopes.withConnection(c -> Flux.from(c.createStatement(FAILS_AT_ROW_500)
                                        .bind(0, row)
                                        .execute())
                                .then()
                                .thenReturn("success"))
                        .block(LONG))
                .isInstanceOf(R2dbcException.class)
                .hasMessageContaining("division by zero");
    }

    /** Whoever took the result and left gets the error when he reads it in the end. */
    @Test
    void reachWhoeverReadsTheResultLater() {
        assertThatThrownBy(() -> scopes.withConnection(
                                c -> Mono.from(c.createStatement(DUPLICATE).execute())
                                        .delayUntil(result -> Rows.ints(c, "select 1"))
                                        .flatMapMany(Result::getRowsUpdated)
                                        .next())
                        .block(LONG))
                .isInstanceOf(R2dbcDataIntegrityViolationException.class);
    }

    @Test
    void reachWhoeverReadsTheRowsLater() {
        assertThatThrownBy(() -> scopes.withConnectionMany(c -> Mono.from(c.createStatement(FAILS_AT_ROW_500)
                                        .bind(0, 500)
                                        .execute())
                                .delayUntil(result -> Rows.ints(c, "select 1"))
                                .flatMapMany(result -> result.map((row, metadata) -> row.get(0, Integer.class))))
                        .blockLast(LONG))
                .isInstanceOf(R2dbcException.class)
                .hasMessageContaining("division by zero");
    }

    @Test
    void areToldToTheListenerHoweverTheResultIsRead() {
        List<Function<Result, Publisher<?>>> readings = List.of(
                Result::getRowsUpdated,
                result -> result.map((row, metadata) -> 1),
                result -> result.filter(segment -> true).getRowsUpdated(),
                result -> result.filter(segment -> true).map((row, metadata) -> 1),
                result -> result.flatMap(Mono::just),
                result -> Mono.empty());
        for (Function<Result, Publisher<?>> reading : readings) {
            scopes.withConnectionMany(c ->
                            Flux.from(c.createStatement(DUPLICATE).execute()).flatMap(reading))
                    .onErrorResume(e -> Mono.empty())
                    .blockLast(LONG);
        }
        assertThat(pool.events(ScopeEvent.StatementEnded.class))
                .hasSize(readings.size())
                .extracting(ScopeEvent.StatementEnded::error)
                .allMatch(Objects::nonNull)
                .hasOnlyElementsOfType(R2dbcDataIntegrityViolationException.class);
    }

    @Test
    void areNotReportedTwiceToOneWhoReadsThem() {
        assertThatThrownBy(() -> scopes.withConnection(c -> Flux.from(
                                        c.createStatement(DUPLICATE).execute())
                                .flatMap(result ->
                                        Flux.from(result.getRowsUpdated()).onErrorResume(e -> Mono.just(-1L)))
                                .single()
                                .flatMap(caught -> Mono.error(new IllegalStateException("caught " + caught))))
                        .block(LONG))
                .isInstanceOf(IllegalStateException.class)
                .hasMessage("caught -1");
    }

    /** Its SQLSTATE is that of the error that it is not: 42P07. */
    @Test
    void aNoticeIsNoError() {
        String notice = "create table if not exists unread_errors (id int)";
        scopes.withConnection(
                        c -> Flux.from(c.createStatement(notice).execute()).then())
                .block(LONG);
        scopes.inTransaction(c -> Flux.from(c.createStatement(notice).execute())
                        .collectList()
                        .delayUntil(results -> Rows.ints(c, "select 1"))
                        .flatMapIterable(results -> results)
                        .concatMap(result -> result.filter(segment -> true).getRowsUpdated())
                        .then())
                .block(LONG);
        assertThat(pool.events(ScopeEvent.StatementEnded.class)).allMatch(event -> event.error() == null);
    }
}
