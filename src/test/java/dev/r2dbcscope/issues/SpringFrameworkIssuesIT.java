package dev.r2dbcscope.issues;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.Await;
import dev.r2dbcscope.CurrentScope;
import dev.r2dbcscope.OnCancel;
import dev.r2dbcscope.Postgres;
import dev.r2dbcscope.Rows;
import dev.r2dbcscope.ScopeEvent;
import dev.r2dbcscope.TransactionOptions;
import dev.r2dbcscope.WatchedPool;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.reactivestreams.Publisher;
import org.springframework.r2dbc.connection.R2dbcTransactionManager;
import org.springframework.r2dbc.core.DatabaseClient;
import org.springframework.transaction.reactive.TransactionalOperator;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/** Issues of spring-projects/spring-framework about what a cancel does to a transaction. */
class SpringFrameworkIssuesIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    private final WatchedPool pool = WatchedPool.of(1);
    private final DatabaseClient client = DatabaseClient.create(pool.pool);
    private final TransactionalOperator spring = TransactionalOperator.create(new R2dbcTransactionManager(pool.pool));

    @BeforeEach
    void table() {
        Postgres.execute("drop table if exists legoset; create table legoset (id int)");
    }

    @AfterEach
    void theConnectionIsWhole() {
        pool.assertWhole();
        assertThat(pool.destroyed()).isZero();
        pool.close();
    }

    private static Flux<Long> insert(Connection connection, int id) {
        return Rows.update(
                connection.createStatement("insert into legoset values ($1)").bind(0, id));
    }

    private static long durable() {
        return Postgres.number("select count(*) from legoset");
    }

    private TransactionOptions on(OnCancel choice) {
        return TransactionOptions.defaults().withOnCancel(choice);
    }

    /**
     * The first element of a transactional Flux was there before its transaction had ended, and nobody could await that. Here
     * the first element comes after the COMMIT, and the end of a scope whose subscriber has left can be awaited.
     */
    @Test
    @Tag("spring-framework#23304")
    void theFirstElementComesAfterTheCommit() {
        spring.execute(status ->
                        client.sql("insert into legoset values (42055)").fetch().rowsUpdated())
                .next()
                .block(LONG);
        Await.until(() -> pool.pool.getMetrics().orElseThrow().acquiredSize() == 0, () -> "still acquired");
        assertThat(durable()).as("Spring rolls back what next() cancels").isZero();

        pool.scopes.inTransaction(c -> insert(c, 42055)).block(LONG);
        assertThat(durable()).isEqualTo(1);

        AtomicReference<CurrentScope> scope = new AtomicReference<>();
        pool.scopes
                .transactions(on(OnCancel.COMMIT))
                .inTransactionMany(c -> CurrentScope.get().doOnNext(scope::set).thenMany(insert(c, 42056)))
                .next()
                .block(LONG);
        scope.get().released().block(LONG);
        assertThat(durable()).isEqualTo(2);
    }

    /**
     * A cancel committed what a transaction had done until then, in the middle of its work, later it rolled back what was
     * meant to be kept. Here it rolls back by default, and to commit, or to finish first, is a choice.
     */
    @ParameterizedTest
    @EnumSource(OnCancel.class)
    @Tag("spring-framework#25091")
    void whatACancelDoesToATransactionIsChosen(OnCancel choice) {
        Sinks.Empty<Void> left = Sinks.empty();
        pool.scopes
                .transactions(on(choice))
                .inTransactionMany(c -> insert(c, 1)
                        .concatWith(left.asMono().then(Mono.empty()))
                        .concatWith(insert(c, 2)))
                .take(1)
                .blockLast(LONG);
        left.tryEmitEmpty();
        pool.awaitQuiet();

        assertThat(durable())
                .isEqualTo(
                        switch (choice) {
                            case ROLLBACK -> 0;
                            case COMMIT -> 1;
                            case COMPLETE -> 2;
                        });
    }

    /**
     * A transactional method that returned a Publisher of one element was rolled back when its caller took it for a Mono,
     * because that cancels after the first element. Here it is one, unless it is to be a Flux, which can be told to commit.
     */
    @Test
    @Tag("spring-framework#26591")
    void aPublisherOfOneElementThatIsTakenForAMonoIsCommitted() {
        Publisher<Long> byHand = spring.execute(
                status -> client.sql("insert into legoset values (1)").fetch().rowsUpdated());
        Mono.from(byHand).block(LONG);
        Await.until(() -> pool.pool.getMetrics().orElseThrow().acquiredSize() == 0, () -> "still acquired");
        assertThat(durable()).as("Spring rolls back what Mono.from() cancels").isZero();

        Publisher<Long> one = pool.scopes.inTransaction(c -> insert(c, 1));
        Mono.from(one).block(LONG);
        assertThat(durable()).isEqualTo(1);

        Publisher<Long> many = pool.scopes.transactions(on(OnCancel.COMMIT)).inTransactionMany(c -> insert(c, 2));
        Mono.from(many).block(LONG);
        pool.awaitQuiet();
        assertThat(durable()).isEqualTo(2);
    }

    /**
     * A transaction that was cancelled a moment after it had been subscribed to, while its BEGIN was under way, leaked into
     * the requests of others by way of the pool. Here no borrower finds a transaction, at whatever moment the cancel comes.
     */
    @Test
    @Tag("spring-framework#36344")
    void aTransactionThatIsCancelledAtOnceLeavesNoneToTheNextBorrower() {
        pool.assertWhole();
        for (int i = 0; i < 400; i++) {
            pool.scopes
                    .inTransaction(c -> Mono.never())
                    .takeUntilOther(Mono.delay(Duration.ofNanos(i * 10_000L)))
                    .block(LONG);
            assertThat(pool.borrow(c -> Rows.ints(c, "select (now() <> statement_timestamp())::int")))
                    .as("in a transaction, after a cancel at %s us", i * 10)
                    .containsExactly(0);
        }
        assertThat(pool.events(ScopeEvent.Opened.class))
                .as("some were cancelled before the BEGIN was answered")
                .hasSizeBetween(1, 399);
    }
}
