package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.BiConsumer;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The examples of README.md about transactions, settings, limits and bridges. */
class ReadmeTransactionsIT extends ReadmeShop {

    private Mono<Long> audit(Connection connection, String entry) {
        return Rows.update(connection
                        .createStatement("insert into readme_audit values ($1, current_setting('app.tenant', true))")
                        .bind(0, entry))
                .next();
    }

    private static long audited() {
        return Postgres.number("select count(*) from readme_audit");
    }

    @Test
    void propagation() {
        pool.dispose();
        pool = Postgres.pool(2);
        scopes = ConnectionScopes.of(pool);
        // example: propagation
        ConnectionScopes own = scopes.transactions(Propagation.REQUIRES_NEW);
        ConnectionScopes part = scopes.transactions(Propagation.NESTED);

        Flux<Long> booked = scopes.inTransactionMany(connection -> orderIds(connection)
                .take(100)
                .concatMap(id -> part.inTransaction(savepoint -> add(savepoint, "ann", -10)
                                .filter(rows -> id % 10 != 0)
                                .switchIfEmpty(Mono.error(new NoSuchAccount())))
                        .onErrorResume(NoSuchAccount.class, e -> own.inTransaction(c -> audit(c, "refused " + id)))));
        // end
        assertThat(booked.count().block(BOUND)).isEqualTo(100);
        assertThat(balance("ann")).isEqualTo(500 - 90 * 10);
        assertThat(audited()).isEqualTo(10);
    }

    @Test
    void choices() {
        List<String> mails = new CopyOnWriteArrayList<>();
        // example: choices
        TransactionOptions whole = TransactionOptions.defaults().withEmitAfterCommit(1_000);
        Flux<Long> afterCommit = scopes.transactions(whole)
                .inTransactionMany(connection -> Flux.range(0, 10).concatMap(i -> add(connection, "ann", -1)));

        TransactionOptions keep = TransactionOptions.defaults().withOnCancel(OnCancel.COMMIT);
        Mono<Long> first = scopes.transactions(keep)
                .inTransactionMany(connection -> add(connection, "ann", -1).concatWith(add(connection, "bob", 1)))
                .next();

        TransactionOptions finish = TransactionOptions.defaults()
                .withOnCancel(OnCancel.COMPLETE)
                .withCompletionTimeout(Duration.ofSeconds(20));
        Mono<Long> evenIfTheClientHangsUp =
                scopes.transactions(finish).inTransaction(connection -> add(connection, "bob", 5));

        Mono<Long> order = scopes.inTransaction(connection -> add(connection, "ann", -100)
                .delayUntil(rows -> CurrentScope.get().doOnNext(scope -> {
                    scope.afterCommit(Mono.fromRunnable(() -> mails.add("thank you")));
                    if (rows == 0) {
                        scope.setRollbackOnly();
                    }
                })));
        // end
        assertThat(afterCommit.take(1).blockLast(BOUND)).isEqualTo(1);
        assertThat(balance("ann")).isEqualTo(490);
        assertThat(first.block(BOUND)).isEqualTo(1);
        assertThat(evenIfTheClientHangsUp.block(BOUND)).isEqualTo(1);
        assertThat(order.block(BOUND)).isEqualTo(1);
        assertThat(mails).containsExactly("thank you");
        assertThat(balance("ann")).isEqualTo(389);
        assertThat(balance("bob")).isEqualTo(5);
    }

    @Test
    void retry() {
        // example: retry
        TransactionOptions serializable = TransactionOptions.defaults()
                .withIsolation(IsolationLevel.SERIALIZABLE)
                .withRetry(RetryPolicy.serialization(5));

        Mono<Long> moved = scopes.transactions(serializable)
                .inTransaction(connection -> add(connection, "ann", -100).then(add(connection, "bob", 100)));
        // end
        assertThat(moved.block(BOUND)).isEqualTo(1);
        assertThatThrownBy(() -> scopes.transactions(serializable).inTransactionMany(c -> Mono.just(1)))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("withEmitAfterCommit");
    }

    @Test
    void settings() {
        // example: settings
        SessionSettings tenant = SessionSettings.none()
                .fromContext("app.tenant", context -> context.get("tenant"))
                .withSearchPath("public")
                .withApplicationName("orders");
        ConnectionScopes ofTenant = scopes.with(ScopeOptions.defaults()
                .withSettings(tenant)
                .withStatementTimeout(Duration.ofSeconds(10))
                .withMaxHold(Duration.ofMinutes(5))
                .withMaxIdle(Duration.ofSeconds(30)));

        Mono<Long> entry = ofTenant.inTransaction(connection -> audit(connection, "hello"))
                .contextWrite(context -> context.put("tenant", "acme"));
        // end
        assertThat(entry.block(BOUND)).isEqualTo(1);
        assertThat(Postgres.number("select count(*) from readme_audit where tenant = 'acme'"))
                .isEqualTo(1);
    }

    /** Code of another age. */
    private static final class Legacy {

        private final ReadmeTransactionsIT test;

        Legacy(ReadmeTransactionsIT test) {
            this.test = test;
        }

        CompletableFuture<Long> payAsync(Connection connection, int amount) {
            return test.add(connection, "ann", -amount).toFuture();
        }

        void pay(Connection connection, int amount, BiConsumer<Long, Throwable> callback) {
            payAsync(connection, amount).whenComplete(callback);
        }
    }

    @Test
    void bridges() {
        Legacy legacy = new Legacy(this);
        // example: bridges
        Mono<Long> byFuture = scopes.inTransaction(ScopeBridge.stage(connection -> legacy.payAsync(connection, 100)));

        Mono<Long> byCallback = scopes.inTransaction(ScopeBridge.<Long>callback((connection, sink) ->
                legacy.pay(connection, 100, (rows, error) -> {
                    if (error == null) {
                        sink.success(rows);
                    } else {
                        sink.error(error);
                    }
                })));
        // end
        assertThat(byFuture.block(BOUND)).isEqualTo(1);
        assertThat(byCallback.block(BOUND)).isEqualTo(1);
        assertThat(balance("ann")).isEqualTo(300);
    }
}
