package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.DriverTurn;
import io.r2dbc.spi.Connection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * The advisory locks of the session level that one scope has acquired, so that its end releases exactly those: the database
 * counts per connection, and a scope around this one may hold the same lock.
 *
 * <p>A request that failed may have got its lock all the same, because the database undoes everything of a statement but that.
 * The end of the scope looks whether it did, and has the connection destroyed then; how often the lock is held, and for whom,
 * the database does not say.
 */
final class HeldLocks {

    static final String UNLOCK = "advisory_unlock";

    private final Map<LockKey, Holding> holdings = new LinkedHashMap<>();

    private static final class Holding {
        int times;
        int open;
    }

    private record Count(LockKey key, int times, boolean uncertain) {}

    private HeldLocks() {}

    static HeldLocks releasedAtEndOf(DriverTurn turn) {
        HeldLocks locks = new HeldLocks();
        turn.atEnd("Releasing the advisory locks of the scope", locks::releaseAll);
        return locks;
    }

    /** Counts what a request gets. */
    Flux<Boolean> counting(LockKey key, Flux<Boolean> request) {
        return Flux.defer(() -> {
            change(key, 0, 1);
            return request.doOnNext(got -> change(key, got ? 1 : 0, -1));
        });
    }

    private synchronized void change(LockKey key, int times, int open) {
        Holding holding = holdings.computeIfAbsent(key, absent -> new Holding());
        holding.times += times;
        holding.open += open;
        if (holding.times == 0 && holding.open == 0) {
            holdings.remove(key);
        }
    }

    private synchronized boolean holds(LockKey key) {
        Holding holding = holdings.get(key);
        return holding != null && holding.times > 0;
    }

    /** Emits whether it was held. */
    Mono<Boolean> releaseOnce(LockKey key, Connection connection) {
        return Mono.defer(() -> holds(key)
                ? unlock(connection, key, 1).last().doOnNext(released -> change(key, -1, 0))
                : Mono.just(false));
    }

    private Flux<Boolean> releaseAll(Connection connection) {
        return Flux.fromIterable(counts())
                .concatMap(count -> unlock(connection, count.key(), count.times())
                        .concatWith(Flux.defer(
                                () -> count.uncertain() ? requireFree(connection, count.key()) : Flux.empty())));
    }

    private synchronized List<Count> counts() {
        return holdings.entrySet().stream()
                .map(entry -> new Count(entry.getKey(), entry.getValue().times, entry.getValue().open > 0))
                .toList();
    }

    private static Flux<Boolean> unlock(Connection connection, LockKey key, int times) {
        return times == 0
                ? Flux.empty()
                : LockKey.answers(key.call(connection, UNLOCK, " from pg_catalog.generate_series(1, " + times + ")"));
    }

    private static Flux<Boolean> requireFree(Connection connection, LockKey key) {
        return LockKey.answers(key.isHeld(connection))
                .flatMap(held -> held
                        ? Mono.error(new IllegalStateException(
                                "A request for an advisory lock failed, but the lock is held"))
                        : Mono.just(true));
    }
}
