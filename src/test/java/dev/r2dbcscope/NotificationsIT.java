package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.postgresql.Notification;
import dev.r2dbcscope.postgresql.Notification.Listening;
import dev.r2dbcscope.postgresql.Notification.MayHaveMissed;
import dev.r2dbcscope.postgresql.Notification.MayHaveMissed.Reason;
import dev.r2dbcscope.postgresql.Notification.Received;
import dev.r2dbcscope.postgresql.Notifications;
import dev.r2dbcscope.testkit.FaultyProxy;
import dev.r2dbcscope.testkit.NetworkFault;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Predicate;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.reactivestreams.Subscription;
import reactor.core.Disposable;
import reactor.core.Exceptions;
import reactor.core.publisher.BaseSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

/** LISTEN as a Flux: order, demand, what is missed is told, and the connection's end. */
class NotificationsIT {

    private static final Duration LONG = Duration.ofSeconds(60);
    private static final int MANY = Integer.getInteger("notifications", 10_000);
    private static final AtomicInteger CHANNELS = new AtomicInteger();

    @RegisterExtension
    private final LogCapture log = new LogCapture();

    private final WatchedPool pool = WatchedPool.of(2);
    private final ConnectionScopes scopes = pool.scopes;
    private final Notifications notifications =
            Notifications.of(scopes).withReconnect(Long.MAX_VALUE, Duration.ofMillis(20), Duration.ofMillis(200));
    private final String channel = "channel_" + CHANNELS.incrementAndGet();

    @AfterEach
    void thePoolIsWhole() {
        pool.assertWhole();
        pool.close();
    }

    /** Somebody who hears, with the demand that the test says. */
    private static final class Hearer extends BaseSubscriber<Notification> {

        private final List<Notification> all = new ArrayList<>();
        private final long demand;
        private volatile Throwable error;
        private volatile boolean completed;

        Hearer(long demand) {
            this.demand = demand;
        }

        @Override
        protected void hookOnSubscribe(Subscription subscription) {
            if (demand > 0) {
                request(demand);
            }
        }

        @Override
        protected void hookOnNext(Notification value) {
            synchronized (all) {
                all.add(value);
            }
        }

        @Override
        protected void hookOnError(Throwable thrown) {
            error = thrown;
        }

        @Override
        protected void hookOnComplete() {
            completed = true;
        }

        List<Notification> heard() {
            synchronized (all) {
                return List.copyOf(all);
            }
        }

        int count() {
            synchronized (all) {
                return all.size();
            }
        }

        Hearer awaitListening() {
            return await(n -> n instanceof Listening);
        }

        Hearer await(Predicate<Notification> expected) {
            Await.until(() -> heard().stream().anyMatch(expected), () -> "heard only " + heard() + ", error " + error);
            return this;
        }

        Hearer awaitReceived(int count) {
            Await.until(() -> payloads().size() >= count, () -> "heard only " + heard() + ", error " + error);
            return this;
        }

        List<String> payloads() {
            return heard().stream()
                    .filter(Received.class::isInstance)
                    .map(n -> ((Received) n).payload())
                    .toList();
        }

        List<MayHaveMissed> missed() {
            return heard().stream()
                    .filter(MayHaveMissed.class::isInstance)
                    .map(MayHaveMissed.class::cast)
                    .toList();
        }
    }

    private Hearer hear(Notifications from, long demand) {
        Hearer hearer = new Hearer(demand);
        from.listen(channel).subscribe(hearer);
        return hearer;
    }

    private Hearer hear() {
        return hear(notifications, Long.MAX_VALUE).awaitListening();
    }

    private static void tell(String channel, String payload) {
        Postgres.execute("select pg_notify('" + channel + "', '" + payload + "')");
    }

    private void tellMany(int count) {
        Postgres.execute("select pg_notify('" + channel + "', i::text) from generate_series(1, " + count + ") i");
    }

    private static List<String> numbers(int first, int last) {
        return IntStream.rangeClosed(first, last).mapToObj(Integer::toString).toList();
    }

    private void endAndAwaitTheBackendsEnd(Hearer hearer) {
        Set<Integer> before = pool.backends();
        hearer.cancel();
        pool.awaitQuiet();
        Await.until(() -> pool.backends().stream().noneMatch(before::contains), () -> "the backend is still there");
    }

    @Nested
    class WhatIsHeard {

        @Test
        void comesInOrderWithItsChannelPayloadAndSender() {
            Hearer hearer = hear();
            tellMany(300);
            tell(channel, "");
            hearer.awaitReceived(301);
            assertThat(hearer.payloads().subList(0, 300)).isEqualTo(numbers(1, 300));
            assertThat(hearer.payloads().get(300)).isEmpty();
            assertThat(hearer.heard().get(0)).isEqualTo(new Listening());
            Received first = (Received) hearer.heard().get(1);
            assertThat(first.channel()).isEqualTo(channel);
            assertThat(first.processId()).isPositive();
            assertThat(first.toString()).contains(channel).doesNotContain("payload=1,");
            assertThat(hearer.missed()).isEmpty();
            endAndAwaitTheBackendsEnd(hearer);
            assertThat(log.lines()).isEmpty();
        }

        @Test
        void isDeliveredOneByOneToWhoeverAsksForOneAtATime() {
            Hearer hearer = hear(notifications.withBuffer(MANY), 1).awaitListening();
            tellMany(MANY);
            for (int i = 1; i <= MANY; i++) {
                int wanted = i + 1;
                hearer.request(1);
                Await.until(() -> hearer.count() >= wanted, () -> "heard only " + hearer.count());
                assertThat(hearer.count()).isEqualTo(wanted);
            }
            assertThat(hearer.payloads()).isEqualTo(numbers(1, MANY));
            hearer.cancel();
        }

        @Test
        void comesFromSeveralChannelsWhateverTheirNames() {
            String odd = "we\"ird $1 ; drop; Ünï " + channel;
            Hearer hearer = new Hearer(Long.MAX_VALUE);
            notifications.listen(channel, odd, channel).subscribe(hearer);
            hearer.awaitListening();
            tell(odd, "odd");
            tell(channel, "plain");
            hearer.awaitReceived(2);
            assertThat(hearer.payloads()).containsExactly("odd", "plain");
            assertThat(((Received) hearer.heard().get(1)).channel()).isEqualTo(odd);
            hearer.cancel();
        }

        @Test
        void isThePayloadAloneForThoseWhoWantThat() {
            List<String> two = notifications
                    .payloads(channel)
                    .take(2)
                    .mergeWith(Mono.<String>fromRunnable(() -> Await.until(
                                    () -> {
                                        tell(channel, "again");
                                        return pool.scopes.live().isEmpty();
                                    },
                                    () -> "never heard"))
                            .subscribeOn(Schedulers.boundedElastic()))
                    .collectList()
                    .block(LONG);
            assertThat(two).containsExactly("again", "again");
        }

        @Test
        void isSharedByThoseWhoShareIt() {
            Flux<Notification> shared = notifications.listen(channel).share();
            Hearer one = new Hearer(Long.MAX_VALUE);
            Hearer two = new Hearer(Long.MAX_VALUE);
            shared.subscribe(one);
            shared.subscribe(two);
            one.awaitListening();
            tellMany(10);
            assertThat(one.awaitReceived(10).payloads())
                    .isEqualTo(two.awaitReceived(10).payloads());
            assertThat(pool.backends()).hasSize(1);
            one.cancel();
            two.cancel();
        }

        @Test
        void needsAChannelWithAName() {
            assertThatThrownBy(() -> notifications.listen("")).isInstanceOf(IllegalArgumentException.class);
            assertThatThrownBy(() -> notifications.listen("x".repeat(64))).isInstanceOf(IllegalArgumentException.class);
            Hearer longest = new Hearer(Long.MAX_VALUE);
            notifications.listen("x".repeat(63)).subscribe(longest);
            longest.awaitListening();
            tell("x".repeat(63), "long");
            longest.awaitReceived(1).cancel();
        }
    }

    @Nested
    class TheBuffer {

        @Test
        void dropsTheOldestAndTellsSo() {
            Duration heartbeat = Duration.ofSeconds(2);
            Hearer hearer = hear(notifications.withBuffer(100).withHeartbeat(heartbeat), 1)
                    .awaitListening();
            tellMany(1_000);
            awaitHeartbeats(2);
            hearer.request(Long.MAX_VALUE);
            hearer.await(
                    n -> n instanceof Received received && received.payload().equals("1000"));
            assertThat(hearer.missed()).hasSize(1);
            assertThat(hearer.missed().get(0).reason()).isEqualTo(Reason.OVERFLOW);
            int signal = hearer.heard().indexOf(hearer.missed().get(0));
            List<String> after = hearer
                    .heard()
                    .subList(signal + 1, hearer.heard().size())
                    .stream()
                    .map(n -> ((Received) n).payload())
                    .toList();
            assertThat(after).isEqualTo(numbers(1_000 - after.size() + 1, 1_000));
            assertThat(after.size()).isBetween(100, 101);
            assertThat(hearer.heard().size()).isBetween(102, 104);
            tell(channel, "later");
            hearer.await(
                    n -> n instanceof Received received && received.payload().equals("later"));
            assertThat(hearer.missed()).hasSize(1);
            hearer.cancel();
        }

        /** What was notified before a heartbeat was sent has come before its answer. */
        private void awaitHeartbeats(int count) {
            long before = statements();
            Await.until(() -> statements() >= before + count, () -> "no heartbeat: " + scopes.live());
        }

        private long statements() {
            return scopes.live().get(0).statements();
        }

        @Test
        void failsTheSubscriptionIfThatIsWished() {
            Hearer hearer = hear(notifications.withBuffer(10).withFailOnOverflow(true), 1)
                    .awaitListening();
            tellMany(100);
            pool.awaitQuiet();
            hearer.request(Long.MAX_VALUE);
            Await.until(() -> hearer.error != null, () -> "no error: " + hearer.heard());
            assertThat(Exceptions.isOverflow(hearer.error)).isTrue();
            assertThat(hearer.error).hasMessageContaining("More than 10 notifications");
            assertThat(hearer.payloads()).isEqualTo(numbers(1, hearer.payloads().size()));
        }
    }

    @Nested
    class TheConnection {

        @Test
        void isReplacedWhenTheServerEndsItAndWhatMayBeMissingIsTold() {
            Hearer hearer = hear();
            tell(channel, "before");
            hearer.awaitReceived(1);
            for (int i = 1; i <= 3; i++) {
                int losses = i;
                pool.terminateBackends();
                Await.until(() -> hearer.missed().size() == losses, () -> "heard only " + hearer.heard());
                tell(channel, "after " + i);
                hearer.awaitReceived(i + 1);
            }
            assertThat(hearer.payloads()).containsExactly("before", "after 1", "after 2", "after 3");
            assertThat(hearer.heard().stream().filter(Listening.class::isInstance))
                    .hasSize(1);
            assertThat(hearer.missed())
                    .allMatch(missed -> missed.reason() == Reason.RECONNECTED && missed.cause() != null);
            endAndAwaitTheBackendsEnd(hearer);
        }

        @Test
        void isNotAskedForAgainWhenThatIsNotWished() {
            Hearer hearer = hear(
                            notifications.withReconnect(0, Duration.ofMillis(1), Duration.ofMillis(1)), Long.MAX_VALUE)
                    .awaitListening();
            pool.terminateBackends();
            Await.until(() -> hearer.error != null, () -> "no error");
            assertThat(hearer.error).isInstanceOf(R2dbcNonTransientResourceException.class);
        }

        @Test
        void isNotAskedForAgainAfterAnErrorThatStays() {
            try (WatchedPool wrong = WatchedPool.to(1, c -> c.database("no_such_database"), o -> o)) {
                assertThatThrownBy(() ->
                                Notifications.of(wrong.scopes).listen(channel).blockLast(LONG))
                        .isInstanceOf(R2dbcException.class)
                        .hasMessageContaining("no_such_database");
            }
            WatchedPool closed = WatchedPool.of(1);
            closed.close();
            assertThatThrownBy(() ->
                            Notifications.of(closed.scopes).listen(channel).blockLast(LONG))
                    .hasMessageContaining("Pool has been shut down");
        }

        @Test
        void isClosedWhenTheSubscriberCancelsWhoeverAsksNextGetsAnother() {
            Hearer hearer = hear();
            assertThat(pool.scopes.live()).singleElement().satisfies(live -> {
                assertThat(live.name()).isEqualTo("LISTEN " + channel);
                assertThat(live.origin()).contains("NotificationsIT");
            });
            endAndAwaitTheBackendsEnd(hearer);
            assertThat(pool.destroyed()).isEqualTo(1);
            assertThat(pool.events(ScopeEvent.ReleaseFailed.class)).isEmpty();
            assertThat(pool.borrow(c -> Rows.ints(c, "select count(*)::int from pg_listening_channels()")))
                    .containsExactly(0);
        }

        @Test
        void isClosedWhenItsSubscriberCancelsBeforeItListens() {
            for (int i = 0; i < 100; i++) {
                Disposable subscription = notifications.listen(channel).subscribe();
                LockSupport.parkNanos(i * 100_000L);
                subscription.dispose();
            }
            pool.awaitQuiet();
            for (int i = 0; i < 2; i++) {
                assertThat(pool.borrow(c -> Rows.ints(c, "select count(*)::int from pg_listening_channels()")))
                        .containsExactly(0);
            }
        }

        @Test
        void isItsOwnEvenInsideATransactionWhichDoesNotEndIt() {
            Hearer hearer = new Hearer(Long.MAX_VALUE);
            scopes.inTransaction(c -> Mono.deferContextual(context -> {
                                notifications
                                        .listen(channel)
                                        .contextWrite(context)
                                        .subscribe(hearer);
                                return Mono.fromRunnable(hearer::awaitListening)
                                        .subscribeOn(Schedulers.boundedElastic());
                            })
                            .then(Mono.fromRunnable(
                                            () -> assertThat(pool.backends()).hasSize(2))
                                    .subscribeOn(Schedulers.boundedElastic()))
                            .thenMany(Rows.ints(c, "select 1 from pg_notify('" + channel + "', 'committed')")))
                    .block(LONG);
            assertThat(hearer.awaitReceived(1).payloads()).containsExactly("committed");
            hearer.cancel();
        }

        @Test
        void isNotEndedByTheTimeLimitsOfItsScopes() {
            ConnectionScopes strict = pool.with(o -> o.withMaxHold(Duration.ofMillis(50))
                    .withMaxIdle(Duration.ofMillis(50))
                    .withLeakThreshold(Duration.ofMillis(50))
                    .withStatementTimeout(Duration.ofMillis(50)));
            Hearer hearer = hear(Notifications.of(strict), Long.MAX_VALUE).awaitListening();
            long since = System.nanoTime();
            Await.until(() -> System.nanoTime() - since > 300_000_000L, () -> "time stands still");
            tell(channel, "still there");
            hearer.awaitReceived(1);
            assertThat(hearer.missed()).isEmpty();
            assertThat(log.lines()).isEmpty();
            hearer.cancel();
        }

        @Test
        void ofAFactoryWithoutAPoolIsClosedAtTheEnd() {
            ConnectionScopes plain = ConnectionScopes.of(Postgres.connectionFactory());
            Hearer hearer = hear(Notifications.of(plain), Long.MAX_VALUE).awaitListening();
            tell(channel, "direct");
            hearer.awaitReceived(1).cancel();
            Await.until(() -> plain.live().isEmpty(), () -> "still live");
            Await.until(
                    () -> Postgres.number("select count(*) from pg_stat_activity where query like '%" + channel
                                    + "%' and pid <> pg_backend_pid()")
                            == 0,
                    () -> "the backend is still there");
        }

        @Test
        void endsWhenTheScopesAreDrained() {
            Hearer hearer = hear();
            scopes.drain(LONG).block(LONG);
            Await.until(() -> hearer.completed, () -> "not completed: " + hearer.error);
            assertThat(scopes.live()).isEmpty();
            assertThatThrownBy(() -> notifications.listen(channel).blockLast(LONG))
                    .isInstanceOf(ScopesDrainedException.class);
        }

        @Test
        void isRefusedUnderTransactionPooling() {
            ConnectionScopes pooled = pool.with(o -> o.withTransactionPooling(true));
            WatchedPool uncached =
                    WatchedPool.to(1, c -> c.preparedStatementCacheQueries(0), o -> o.withTransactionPooling(true));
            try (uncached) {
                assertThatThrownBy(() -> Notifications.of(uncached.scopes)
                                .listen(channel)
                                .blockLast(LONG))
                        .isInstanceOf(TransactionPoolingException.class)
                        .hasMessageContaining("LISTEN");
            }
            assertThatThrownBy(() -> Notifications.of(pooled).listen(channel).blockLast(LONG))
                    .isInstanceOf(TransactionPoolingException.class);
        }
    }

    @Nested
    class TheNetwork {

        private final FaultyProxy proxy = Postgres.network();
        private final WatchedPool remote = WatchedPool.to(
                1,
                c -> c.port(proxy.port()).connectTimeout(Duration.ofSeconds(2)),
                o -> o.withReleaseTimeout(Duration.ofMillis(500)).withAcquireTimeout(Duration.ofSeconds(5)));

        @AfterEach
        void close() throws IOException {
            remote.awaitQuiet();
            remote.close();
            proxy.close();
        }

        private Hearer hearRemotely(Duration heartbeat) {
            return hear(
                            Notifications.of(remote.scopes)
                                    .withReconnect(Long.MAX_VALUE, Duration.ofMillis(20), Duration.ofMillis(200))
                                    .withHeartbeat(heartbeat),
                            Long.MAX_VALUE)
                    .awaitListening();
        }

        @Test
        void thatBreaksIsNoticedAndMended() {
            Hearer hearer = hearRemotely(Duration.ofSeconds(30));
            proxy.strike(NetworkFault.CUT);
            hearer.await(MayHaveMissed.class::isInstance);
            tell(channel, "again");
            assertThat(hearer.awaitReceived(1).payloads()).containsExactly("again");
            hearer.cancel();
        }

        @Test
        void thatSwallowsEverythingIsNoticedByTheHeartbeat() {
            Hearer hearer = hearRemotely(Duration.ofMillis(300));
            proxy.strike(NetworkFault.BLACK_HOLE);
            tell(channel, "lost");
            hearer.await(MayHaveMissed.class::isInstance);
            assertThat(hearer.missed().get(0).cause()).hasMessageContaining("did not answer");
            Await.until(
                    () -> {
                        tell(channel, "again"); // more than once: so short a heartbeat may be missed by a slow machine
                        return !hearer.payloads().isEmpty();
                    },
                    () -> "heard only " + hearer.heard());
            assertThat(hearer.payloads()).doesNotContain("lost");
            hearer.cancel();
            proxy.heal();
        }

        @Test
        void thatIsDownForAWhileIsTriedAgainUntilItIsBack() throws IOException {
            FaultyProxy first = Postgres.network();
            int port = first.port();
            try (WatchedPool away = WatchedPool.to(1, c -> c.port(port), o -> o)) {
                Hearer hearer = hear(
                                Notifications.of(away.scopes)
                                        .withReconnect(Long.MAX_VALUE, Duration.ofMillis(20), Duration.ofMillis(100)),
                                Long.MAX_VALUE)
                        .awaitListening();
                first.close();
                Await.until(
                        () -> away.events(ScopeEvent.OpenFailed.class).size() > 3, () -> "no attempts: " + away.events);
                assertThat(hearer.error).isNull();
                FaultyProxy back = FaultyProxy.to("127.0.0.1", Postgres.port(), port);
                hearer.await(MayHaveMissed.class::isInstance);
                tell(channel, "back");
                hearer.awaitReceived(1).cancel();
                away.awaitQuiet();
                back.close();
            }
        }
    }
}
