package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.pool.PoolMetrics;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import reactor.core.Disposable;
import reactor.core.publisher.Mono;
import reactor.test.util.RaceTestUtils;

/**
 * Cancel races the delivery of a connection by r2dbc-pool.
 *
 * <p>The pool takes a connection back whose {@code create()} is cancelled after it was delivered (r2dbc-pool#211). If the
 * scope did that, its body would run on a connection that the next borrower has too, and its own release would give that
 * borrower's connection to a third.
 */
class DoubleOwnerIT {

    private static final Duration LONG = Duration.ofSeconds(60);
    private static final int ROUNDS = 20_000;

    private final AtomicInteger owners = new AtomicInteger();
    private final AtomicInteger most = new AtomicInteger();
    private final AtomicInteger bodies = new AtomicInteger();
    private final WatchedPool pool = WatchedPool.of(1);

    @AfterEach
    void theConnectionSurvivedAndIsClean() {
        assertThat(pool.destroyed()).isZero();
        pool.assertWhole();
        pool.close();
    }

    private final ConnectionScopes scopes =
            pool.scopes.with(ScopeOptions.defaults().withListener(event -> {
                if (event instanceof ScopeEvent.Exiting) {
                    owners.decrementAndGet();
                }
            }));

    /** A scope that owns its connection from the call of its function until its exit. */
    private final Mono<Object> scope = scopes.withConnection(connection -> {
        bodies.incrementAndGet();
        owned();
        return Mono.never();
    });

    private void owned() {
        most.accumulateAndGet(owners.incrementAndGet(), Math::max);
    }

    private Connection borrow() {
        Connection connection = pool.pool.create().blockOptional(LONG).orElseThrow();
        owned();
        return connection;
    }

    private void giveBack(Connection connection) {
        owners.decrementAndGet();
        Mono.from(connection.close()).subscribe();
    }

    /** The borrower holds the only connection; nothing else may believe that it is free or its own. */
    private void assertSoleOwner() {
        Await.until(() -> scopes.live().isEmpty(), () -> "still live: " + scopes.live());
        PoolMetrics metrics = pool.pool.getMetrics().orElseThrow();
        assertThat(metrics.acquiredSize()).isEqualTo(1);
        assertThat(metrics.idleSize()).isZero();
        assertThat(metrics.allocatedSize()).isEqualTo(1);
    }

    @Test
    @Tag("lifecycle-19")
    @Tag("lifecycle-54")
    void thereAreNeverTwoOwnersWhenCancelRacesTheDeliveryToAWaitingScope() {
        Connection holder = borrow();
        for (int round = 0; round < ROUNDS; round++) {
            Connection given = holder;
            Disposable subscription = scope.subscribe();
            RaceTestUtils.race(() -> giveBack(given), subscription::dispose);
            holder = borrow();
            assertSoleOwner();
        }
        giveBack(holder);
        assertThat(most).hasValue(1);
        assertThat(bodies).as("the delivery won at times").hasValueGreaterThan(0);
        assertThat(bodies).as("the cancel won at times").hasValueLessThan(ROUNDS);
    }

    @Test
    @Tag("lifecycle-19")
    @Tag("lifecycle-42")
    void thereAreNeverTwoOwnersWhenCancelRacesTheDeliveryOfAnIdleConnection() {
        giveBack(borrow());
        for (int round = 0; round < ROUNDS; round++) {
            Disposable.Swap subscription = reactor.core.Disposables.swap();
            RaceTestUtils.race(() -> subscription.update(scope.subscribe()), subscription::dispose);
            Connection next = borrow();
            assertSoleOwner();
            giveBack(next);
        }
        assertThat(most).hasValue(1);
    }
}
