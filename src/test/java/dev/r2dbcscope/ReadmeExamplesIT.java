package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.netty.util.ResourceLeakDetector;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactories;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.Statement;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicLong;
import org.jooq.SQLDialect;
import org.jooq.impl.DSL;
import org.junit.jupiter.api.Test;
import org.springframework.r2dbc.core.DatabaseClient;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The examples of README.md. {@link ReadmeTest} checks that what is printed there is what runs here. */
class ReadmeExamplesIT extends ReadmeShop {

    // example: repository
    class OrderRepository {

        private final ConnectionFactory connections;

        OrderRepository(ConnectionFactory connections) {
            this.connections = connections;
        }

        Flux<Long> findIds() {
            return Flux.usingWhen(connections.create(), c -> orderIds(c), Connection::close);
        }

        Mono<Long> findAmount(long orderId) {
            return Mono.usingWhen(connections.create(), c -> amount(c, orderId), Connection::close);
        }
    }
    // end

    @Test
    void quickStart() {
        String url = "r2dbc:postgresql://postgres:postgres@localhost:" + Postgres.port() + "/postgres";
        // example: quick start
        ConnectionPool pool = new ConnectionPool(ConnectionPoolConfiguration.builder(ConnectionFactories.get(url))
                .build());
        ConnectionScopes scopes = ConnectionScopes.of(pool);

        Mono<Long> transfer =
                scopes.inTransaction(connection -> add(connection, "ann", -100).then(add(connection, "bob", 100)));
        // end
        assertThat(transfer.block(BOUND)).isEqualTo(1);
        assertThat(balance("ann")).isEqualTo(400);
        assertThat(balance("bob")).isEqualTo(100);
        assertThat(pool.getMetrics().orElseThrow().acquiredSize()).isZero();
        pool.dispose();
    }

    @Test
    void closures() {
        // example: closures
        Mono<Long> first = scopes.withConnection(connection -> orderIds(connection));
        Flux<Long> all = scopes.withConnectionMany(connection -> orderIds(connection));
        Mono<Long> paid = scopes.inTransaction(connection -> add(connection, "ann", -5));
        Flux<Long> both = scopes.inTransactionMany(
                connection -> Flux.concat(add(connection, "ann", -1), add(connection, "bob", 1)));
        // end
        assertThat(first.block(BOUND)).isEqualTo(1);
        assertThat(all.count().block(BOUND)).isEqualTo(ORDERS);
        assertThat(paid.block(BOUND)).isEqualTo(1);
        assertThat(both.collectList().block(BOUND)).containsExactly(1L, 1L);
        assertThat(balance("ann")).isEqualTo(494);
    }

    @Test
    void operators() {
        // example: operators
        OrderRepository orders = new OrderRepository(scopes.connectionFactory());

        Flux<Long> amounts = orders.findIds().flatMap(orders::findAmount, 16).as(scopes::connected);
        Mono<Long> total = amounts.reduce(0L, Long::sum).as(scopes::transactional);
        // end
        assertThat(amounts.count().block(BOUND)).isEqualTo(ORDERS);
        assertThat(total.block(BOUND)).isEqualTo(ORDERS * 20L);
    }

    @Test
    void nested() {
        // example: nested
        ScopeOptions reading = ScopeOptions.defaults().withName("amounts").withMaxBufferedRows(100_000);

        Flux<Long> amounts = scopes.with(reading)
                .withConnectionMany(connection -> orderIds(connection).flatMap(id -> amount(connection, id), 16));
        // end
        assertThat(amounts.count().block(BOUND)).isEqualTo(ORDERS);
    }

    @Test
    void transactions() {
        // example: transactions
        TransactionOptions strict = TransactionOptions.defaults()
                .withIsolation(IsolationLevel.SERIALIZABLE)
                .withLockWaitTimeout(Duration.ofSeconds(2));

        Mono<Long> booked = scopes.transactions(strict)
                .inTransaction(connection -> add(connection, "ann", -100)
                        .flatMap(rows -> rows == 1 ? add(connection, "bob", 100) : Mono.error(new NoSuchAccount())));
        // end
        assertThat(booked.block(BOUND)).isEqualTo(1);
        assertThat(balance("bob")).isEqualTo(100);
    }

    @Test
    void databaseClient() {
        // example: databaseClient
        DatabaseClient client = DatabaseClient.create(scopes.connectionFactory());

        Mono<Long> moved = client.sql("update readme_accounts set balance = balance - 100 where name = 'ann'")
                .fetch()
                .rowsUpdated()
                .then(client.sql("update readme_accounts set balance = balance + 100 where name = 'bob'")
                        .fetch()
                        .rowsUpdated())
                .as(scopes::transactional);
        // end
        assertThat(moved.block(BOUND)).isEqualTo(1);
        assertThat(balance("bob")).isEqualTo(100);
    }

    @Test
    void jooq() {
        // example: jooq
        Flux<Long> amounts =
                scopes.withConnectionMany(connection -> Flux.from(DSL.using(connection, SQLDialect.POSTGRES)
                                .resultQuery("select id from readme_orders order by id"))
                        .flatMap(order -> amount(connection, order.get(0, Long.class)), 16));
        // end
        assertThat(amounts.count().block(BOUND)).isEqualTo(ORDERS);
    }

    @Test
    void jooqWithAFactoryThatIsBoundToTheContext() {
        // example: jooq, bound
        Mono<Integer> sold = Mono.deferContextual(
                        context -> Mono.from(DSL.using(scopes.connectionFactory(context), SQLDialect.POSTGRES)
                                .query("update readme_orders set id = id where id <= 10")))
                .as(scopes::transactional);
        // end
        assertThat(sold.block(BOUND)).isEqualTo(10);
    }

    @Test
    void twoDatabases() {
        ConnectionPool warehousePool = Postgres.pool(2);
        ConnectionScopes shop = scopes;
        Postgres.execute("create table readme_copy (id bigint)");
        // example: two databases
        ConnectionScopes warehouse = ConnectionScopes.of(warehousePool);

        Mono<Long> copied = shop.withConnectionMany(from -> orderIds(from))
                .buffer(500)
                .concatMap(ids -> warehouse.inTransaction(to -> insert(to, ids)))
                .reduce(0L, Long::sum);
        // end
        try {
            assertThat(copied.block(BOUND)).isEqualTo(ORDERS);
            assertThat(Postgres.number("select count(*) from readme_copy")).isEqualTo(ORDERS);
            assertThat(warehousePool.getMetrics().orElseThrow().acquiredSize()).isZero();
        } finally {
            warehousePool.dispose();
            Postgres.execute("drop table readme_copy");
        }
    }

    private static Mono<Long> insert(Connection connection, List<Long> ids) {
        Statement insert = connection
                .createStatement("insert into readme_copy select * from unnest($1::bigint[])")
                .bind(0, ids.toArray(Long[]::new));
        return Flux.from(insert.execute())
                .flatMap(result -> result.getRowsUpdated())
                .next();
    }

    @Test
    void operation() {
        List<String> slow = new CopyOnWriteArrayList<>();
        List<String> lines = new ArrayList<>();
        // example: operation
        ScopeListener slowStatements = event -> {
            if (event instanceof ScopeEvent.StatementEnded ended && ended.took().toMillis() >= 100) {
                slow.add(ended.scope().name() + ": " + ended.sql());
            }
        };
        ConnectionScopes watched = scopes.with(ScopeOptions.defaults()
                .withName("report")
                .withLeakThreshold(Duration.ofSeconds(30))
                .withListener(slowStatements));

        for (LiveScope scope : watched.live()) {
            lines.add(scope.name() + " " + scope.state() + " held " + scope.held() + " " + scope.statement());
        }

        Mono<Void> shutdown = watched.drain(Duration.ofSeconds(20));
        // end
        long answer = watched.withConnectionMany(c -> Rows.ints(c, "select 1 from pg_sleep(0.3)"))
                .count()
                .block(BOUND);
        shutdown.block(BOUND);

        assertThat(answer).isEqualTo(1);
        assertThat(lines).isEmpty();
        assertThat(slow).containsExactly("report: select 1 from pg_sleep(0.3)");
        assertThatThrownBy(() -> watched.withConnection(c -> amount(c, 1)).block(BOUND))
                .isInstanceOf(ScopesDrainedException.class);
    }

    // The classic mistakes -------------------------------------------------------------------------------------------

    @Test
    void closedRightAfterScheduling() {
        // example: closed right after scheduling
        Flux<Long> ids = scopes.withConnectionMany(connection -> {
            Flux<Long> rows = orderIds(connection); // nothing has run yet
            Mono.from(connection.close()).subscribe();
            return rows;
        });
        // end
        assertThat(ids.count().block(BOUND)).isEqualTo(ORDERS);

        // example: escaped
        Flux<Long> escaped = scopes.withConnection(connection -> Mono.just(orderIds(connection)))
                .flatMapMany(rows -> rows);
        // end
        assertThatThrownBy(escaped::blockLast)
                .isInstanceOf(ScopeClosedException.class)
                .hasMessageContaining("closedRightAfterScheduling");
    }

    @Test
    void closedAfterTheFirstCallback() {
        // example: closed after the first callback
        Flux<Long> amounts = scopes.withConnectionMany(connection -> orderIds(connection)
                .doOnComplete(() -> Mono.from(connection.close()).subscribe())
                .flatMap(id -> amount(connection, id)));
        // end
        assertThat(amounts.count().block(BOUND)).isEqualTo(ORDERS);
    }

    @Test
    void aConnectionPerRequest() {
        // example: one connection for all
        Flux<Long> right =
                scopes.withConnectionMany(connection -> orderIds(connection).flatMap(id -> amount(connection, id)));
        // end
        assertThat(right.count().block(BOUND)).isEqualTo(ORDERS);
        ConnectionPool leaking = Postgres.pool(1); // a cancel of the wrong pipeline can cost it a connection for good
        ResourceLeakDetector.Level before = ResourceLeakDetector.getLevel();
        // it also costs the driver rows, which a later test would be told of
        ResourceLeakDetector.setLevel(ResourceLeakDetector.Level.DISABLED);
        assertThatThrownBy(() -> wrongConnectionPerRow(leaking).blockLast(Duration.ofSeconds(2)))
                .hasMessageContaining("Timeout");
        ResourceLeakDetector.setLevel(before);
        leaking.dispose();
    }

    private Flux<Long> wrongConnectionPerRow(ConnectionPool pool) {
        // example: a connection per request
        Flux<Long> amounts = Flux.usingWhen(pool.create(), c -> orderIds(c), Connection::close)
                .flatMap(id -> Mono.usingWhen(pool.create(), c -> amount(c, id), Connection::close));
        // end
        return amounts;
    }

    @Test
    void releasedOnSuccessOnly() {
        AtomicLong released = new AtomicLong();
        ConnectionScopes counting = scopes.with(ScopeOptions.defaults().withListener(event -> {
            if (event instanceof ScopeEvent.Released) {
                released.incrementAndGet();
            }
        }));
        // example: released on every ending
        Mono<Long> right = counting.withConnection(
                connection -> add(connection, "ann", -1_000).flatMap(rows -> Mono.error(new NoSuchAccount())));
        // end
        assertThatThrownBy(right::block).isInstanceOf(NoSuchAccount.class);
        assertThat(released).hasValue(1);
        assertThat(pool.getMetrics().orElseThrow().acquiredSize()).isZero();

        assertThatThrownBy(wrongReleasedOnSuccessOnly()::block).isInstanceOf(NoSuchAccount.class);
        assertThat(pool.getMetrics().orElseThrow().acquiredSize()).isEqualTo(1);
        pool.dispose();
        pool = Postgres.pool(1);
    }

    private Mono<Long> wrongReleasedOnSuccessOnly() {
        // example: released on success only
        Mono<Long> leaks = pool.create()
                .flatMap(connection -> add(connection, "ann", -1_000)
                        .<Long>flatMap(rows -> Mono.error(new NoSuchAccount()))
                        .flatMap(rows -> Mono.from(connection.close()).thenReturn(rows)));
        // end
        return leaks;
    }

    @Test
    void cleanUpScatteredOverBranches() {
        Mono<Long> scattered = pool.create().flatMap(this::scattered);
        assertThat(scattered.block(BOUND)).isEqualTo(1);
        assertThat(balance("ann")).isEqualTo(400);

        // example: clean-up in one place
        Mono<Long> booked = scopes.inTransaction(connection -> add(connection, "ann", -100));
        // end
        assertThat(booked.block(BOUND)).isEqualTo(1);
        assertThat(balance("ann")).isEqualTo(300);
    }

    private Mono<Long> scattered(Connection c) {
        // example: clean-up scattered
        Mono<Long> scattered = Mono.from(c.beginTransaction())
                .then(add(c, "ann", -100))
                .flatMap(rows -> Mono.from(c.commitTransaction())
                        .then(Mono.from(c.close()))
                        .thenReturn(rows))
                .onErrorResume(e -> Mono.from(c.rollbackTransaction())
                        .then(Mono.from(c.close()))
                        .then(Mono.error(e)))
                .doOnCancel(() -> Mono.from(c.rollbackTransaction())
                        .then(Mono.from(c.close()))
                        .subscribe());
        // end
        return scattered;
    }
}
