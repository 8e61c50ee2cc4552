package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.DriverTurn;
import io.r2dbc.spi.Connection;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Objects;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * An advisory lock of PostgreSQL: a lock on a number, to which the application gives its meaning, shared by all clients of
 * one database.
 *
 * <pre>{@code
 * AdvisoryLock nightly = AdvisoryLock.of("nightly report");
 * Mono<Report> report = nightly.during(scopes, connection -> write(connection));
 * }</pre>
 *
 * <p><em>Lifetime:</em> a lock is of one of two levels.
 *
 * <ul>
 *   <li>The <em>session level</em>, the default: the lock is held until the scope ends in which it was acquired, and released
 *       after its COMMIT or ROLLBACK and before the connection goes back; or earlier by {@link #release}. A scope that has
 *       joined another one acquires for that one's length. In a savepoint ({@code NESTED}) the lock is released at the end of
 *       the savepoint, while what was written in it is still to be committed: use the other level there. A rollback does not
 *       release it.
 *   <li>The <em>transaction level</em>, by {@link #forTransaction()}: the database releases it at the end of the transaction,
 *       not before. One that was acquired in a savepoint is held beyond that one's end until the transaction's, unless the
 *       savepoint is rolled back to, which releases it.
 * </ul>
 *
 * <p>Acquiring again what the same connection holds succeeds at once, and counts: a lock of the session level is free when it
 * was released as often, which the end of the scope sees to.
 *
 * <p><em>Endings:</em> the wait is bounded by the lock wait timeout of the scope ({@code ScopeOptions.withLockWaitTimeout}),
 * beyond which it fails with {@code ScopeTimeoutException}; there is none by default. When its subscriber cancels or its scope
 * ends, the database is asked to stop waiting after the scope's cancel grace, as for any statement, and a lock that was got
 * meanwhile is released at the end of the scope at the latest. In a transaction that goes on it is not asked, because that would
 * abort the transaction: the next statement waits for the lock then, so bound the wait, or use {@link #tryAcquire}. Where it is
 * not certain whether the lock was got, or it cannot be released, the connection is destroyed, which releases it as well. The
 * connection serves no other statement during the wait. A deadlock (SQLSTATE 40P01) is passed on as the database reports it.
 *
 * <p>Works with the connection of a scope alone; others are refused with {@link IllegalArgumentException}. Immutable and
 * thread-safe. The keys of {@link #of(long)} and {@link #of(int, int)} are apart.
 */
public final class AdvisoryLock {

    private final LockKey key;
    private final boolean transactional;

    private AdvisoryLock(LockKey key, boolean transactional) {
        this.key = key;
        this.transactional = transactional;
    }

    /**
     * Returns the lock on a number.
     *
     * @param key the number
     * @return the lock: exclusive, of the session level
     */
    public static AdvisoryLock of(long key) {
        return new AdvisoryLock(new LockKey(key, false, false), false);
    }

    /**
     * Returns the lock on a pair of numbers, such as a table's and a row's.
     *
     * @param first the first number
     * @param second the second number
     * @return the lock: exclusive, of the session level
     */
    public static AdvisoryLock of(int first, int second) {
        return new AdvisoryLock(new LockKey((long) first << 32 | second & 0xFFFF_FFFFL, true, false), false);
    }

    /**
     * Returns the lock on a text, which is the one on the number that the first eight bytes of the SHA-256 digest of its UTF-8
     * form are, in network order. Other clients of the database compute the same number with
     *
     * <pre>{@code
     * ('x' || encode(substring(sha256(convert_to('the text', 'UTF8')) for 8), 'hex'))::bit(64)::bigint
     * }</pre>
     *
     * @param key the text; two different ones have the same number with a probability of 1 in 2<sup>64</sup>
     * @return the lock: exclusive, of the session level
     */
    public static AdvisoryLock of(String key) {
        Objects.requireNonNull(key, "key");
        try {
            byte[] digest = MessageDigest.getInstance("SHA-256").digest(key.getBytes(StandardCharsets.UTF_8));
            return of(ByteBuffer.wrap(digest).getLong());
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("Every Java platform has SHA-256", e);
        }
    }

    /**
     * Returns the shared form of this lock: any number of connections may hold it at once, while none holds the exclusive one.
     *
     * @return the shared lock on the same key, of the same level
     */
    public AdvisoryLock shared() {
        return new AdvisoryLock(key.asShared(), transactional);
    }

    /**
     * Returns this lock on the transaction level: released by the database at the end of the transaction. Its methods fail
     * with {@link dev.r2dbcscope.TransactionRequiredException} outside of one.
     *
     * @return the lock on the same key and of the same form, of the transaction level
     */
    public AdvisoryLock forTransaction() {
        return new AdvisoryLock(key, true);
    }

    /**
     * Acquires the lock, and waits until it is free. See the class for how long it is held and what bounds the wait.
     *
     * @param connection a connection that a scope has handed out
     * @return completes when the lock is held
     */
    public Mono<Void> acquire(Connection connection) {
        return request(connection, "").then();
    }

    /**
     * Acquires the lock if it is free, and does not wait.
     *
     * @param connection a connection that a scope has handed out
     * @return emits whether the lock is held now
     */
    public Mono<Boolean> tryAcquire(Connection connection) {
        return request(connection, "try_");
    }

    /**
     * Releases the lock once, before the end of the scope that acquired it.
     *
     * @param connection a connection of the scope in which it was acquired
     * @return emits whether this scope held it; nothing is sent if it did not
     * @throws IllegalStateException if it is of the transaction level, which cannot be released before its end
     */
    public Mono<Boolean> release(Connection connection) {
        if (transactional) {
            throw new IllegalStateException(
                    "An advisory lock of the transaction level cannot be released before the end of"
                            + " its transaction; use one of the session level");
        }
        return DriverTurn.take(
                connection, key.words(HeldLocks.UNLOCK), turn -> held(turn).releaseOnce(key, turn.connection()));
    }

    /**
     * Runs a function while the lock is held, and emits the first element of what it returns: in a plain scope if this lock is
     * of the session level, which is released when the function's publisher has ended, or else in a transaction, with which the
     * lock is held until its end.
     *
     * <p>As any scope it joins one around it. Inside a transaction use a lock of the transaction level, because one of the
     * session level is released before the COMMIT.
     *
     * @param scopes opens the scope
     * @param function uses the connection; transactions inside are part of it
     * @param <T> the type of the element
     * @return a {@code Mono} with a scope for each subscription
     */
    public <T> Mono<T> during(
            ConnectionScopes scopes, Function<? super Connection, ? extends Publisher<? extends T>> function) {
        Objects.requireNonNull(function, "function");
        if (transactional) {
            return scopes.inTransaction(
                    connection -> acquire(connection).then(Mono.defer(() -> Mono.from(function.apply(connection)))));
        }
        return scopes.withConnection(connection -> Mono.usingWhen(
                acquire(connection).thenReturn(connection),
                held -> Mono.from(function.apply(held)),
                this::releaseEarly,
                (held, error) -> releaseEarly(held),
                this::releaseEarly));
    }

    /**
     * Runs a function while the lock is held, and emits what it returns, as {@link #during} does otherwise.
     *
     * @param scopes opens the scope
     * @param function uses the connection; transactions inside are part of it
     * @param <T> the type of the elements
     * @return a {@code Flux} with a scope for each subscription
     */
    public <T> Flux<T> duringMany(
            ConnectionScopes scopes, Function<? super Connection, ? extends Publisher<? extends T>> function) {
        Objects.requireNonNull(function, "function");
        if (transactional) {
            return scopes.inTransactionMany(connection ->
                    acquire(connection).thenMany(Flux.defer(() -> Flux.from(function.apply(connection)))));
        }
        return scopes.withConnectionMany(connection -> Flux.usingWhen(
                acquire(connection).thenReturn(connection),
                function,
                this::releaseEarly,
                (held, error) -> releaseEarly(held),
                this::releaseEarly));
    }

    /** What fails here, because the scope ends already or its transaction was aborted, is done at the end of the scope. */
    private Mono<Boolean> releaseEarly(Connection connection) {
        return release(connection).onErrorComplete();
    }

    private Mono<Boolean> request(Connection connection, String how) {
        String verb = how + (transactional ? "advisory_xact_lock" : "advisory_lock");
        return DriverTurn.take(connection, key.words(verb), turn -> {
            turn.cancellable();
            Flux<Boolean> request = Flux.defer(() -> LockKey.answers(key.call(turn.connection(), verb, "")));
            if (transactional) {
                turn.requireTransaction();
                return request;
            }
            turn.requireSession("use AdvisoryLock.forTransaction() inside a transaction");
            return held(turn).counting(key, request);
        });
    }

    /** The step that releases them is there before the first one is asked for. */
    private static HeldLocks held(DriverTurn turn) {
        return turn.kept(HeldLocks.class, () -> HeldLocks.releasedAtEndOf(turn));
    }

    @Override
    public boolean equals(@Nullable Object other) {
        return other instanceof AdvisoryLock lock && lock.key.equals(key) && lock.transactional == transactional;
    }

    @Override
    public int hashCode() {
        return key.hashCode();
    }

    @Override
    public String toString() {
        return "AdvisoryLock[" + (key.shared() ? "shared" : "exclusive") + ", "
                + (transactional ? "transaction" : "session") + " level]";
    }
}
