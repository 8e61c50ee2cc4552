package dev.r2dbcscope.etl;

import dev.r2dbcscope.ConnectionScopes;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Row;
import java.lang.reflect.Array;
import java.time.Duration;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.function.BiFunction;
import java.util.function.Function;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Looks up something for each row, with one query for many rows instead of one for each. Immutable and thread-safe: every {@code
 * with} method returns a copy.
 *
 * <pre>{@code
 * Lookup<Long, String> names = Lookup.ofQuery(
 *         "select id, name from customers where id = any($1)",
 *         Long.class,
 *         row -> row.get("id", Long.class),
 *         row -> row.get("name", String.class));
 *
 * Flux<Line> lines = names.join(scopes, orders, Order::customer)
 *         .map(match -> new Line(match.row(), match.found()));
 * }</pre>
 *
 * <p>Every row comes out, in its order; {@link Match#found()} is {@code null} where nothing was found.
 *
 * @param <K> the type of the keys, with {@code equals} and {@code hashCode}
 * @param <V> the type of what is looked up
 */
public final class Lookup<K, V> {

    private static final int BATCH_SIZE = 1_000;
    private static final Duration MAX_WAIT = Duration.ofMillis(20);

    private final BiFunction<Connection, Set<K>, ? extends Publisher<Map.Entry<K, V>>> query;
    private final ChunkBounds<Object> bounds;
    private final int concurrency;
    private final Supplier<@Nullable LookupCache<K, V>> cache;

    private Lookup(
            BiFunction<Connection, Set<K>, ? extends Publisher<Map.Entry<K, V>>> query,
            ChunkBounds<Object> bounds,
            int concurrency,
            Supplier<@Nullable LookupCache<K, V>> cache) {
        this.query = query;
        this.bounds = bounds;
        this.concurrency = concurrency;
        this.cache = cache;
    }

    private static <K, V> Lookup<K, V> by(BiFunction<Connection, Set<K>, ? extends Publisher<Map.Entry<K, V>>> query) {
        return new Lookup<>(
                query, ChunkBounds.defaults().withMaxRows(BATCH_SIZE).withMaxWait(MAX_WAIT), 1, () -> null);
    }

    /**
     * Looks up with a query that takes the keys as an array.
     *
     * @param sql a query whose only parameter is the array, such as {@code select id, name from customers where id = any($1)}
     * @param keyType the type of the keys, of whose arrays the driver can bind one
     * @param key the key of a row of the result
     * @param value what is looked up, in a row of the result; {@code null} counts as not found
     * @param <K> the type of the keys
     * @param <V> the type of what is looked up
     * @return a lookup of 1,000 rows at a time
     */
    public static <K, V> Lookup<K, V> ofQuery(
            String sql,
            Class<K> keyType,
            Function<? super Row, ? extends @Nullable K> key,
            Function<? super Row, ? extends @Nullable V> value) {
        Objects.requireNonNull(sql, "sql");
        Objects.requireNonNull(keyType, "keyType");
        Objects.requireNonNull(key, "key");
        Objects.requireNonNull(value, "value");
        return by((connection, keys) -> Flux.from(connection
                        .createStatement(sql)
                        .bind(0, keys.toArray(size -> array(keyType, size)))
                        .execute())
                .concatMap(result -> result.map((row, metadata) -> entry(key.apply(row), value.apply(row))))
                .concatMapIterable(entry -> entry));
    }

    /** Nothing where one of them is NULL. */
    private static <K, V> List<Map.Entry<K, V>> entry(@Nullable K key, @Nullable V value) {
        return key == null || value == null ? List.of() : List.of(Map.entry(key, value));
    }

    @SuppressWarnings("unchecked") // an array of that type
    private static <K> K[] array(Class<K> type, int size) {
        return (K[]) Array.newInstance(type, size);
    }

    /**
     * Looks up with a function.
     *
     * @param query finds what there is for some keys, each of them once, at least one of them
     * @param key the key of what it finds
     * @param <K> the type of the keys
     * @param <V> the type of what is looked up
     * @return a lookup of 1,000 rows at a time
     */
    public static <K, V> Lookup<K, V> of(
            BiFunction<? super Connection, ? super Set<K>, ? extends Publisher<? extends V>> query,
            Function<? super V, ? extends K> key) {
        Objects.requireNonNull(query, "query");
        Objects.requireNonNull(key, "key");
        return by((connection, keys) ->
                Flux.from(query.apply(connection, keys)).map(value -> Map.entry(key.apply(value), value)));
    }

    /**
     * Bounds the rows for which there is one query.
     *
     * @param batchSize positive; 1,000 by default
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative
     */
    public Lookup<K, V> withBatchSize(int batchSize) {
        return new Lookup<>(query, bounds.withMaxRows(batchSize), concurrency, cache);
    }

    /**
     * Bounds how long a row waits for others to be looked up with it.
     *
     * @param maxWait positive; 20 ms by default
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative
     */
    public Lookup<K, V> withMaxWait(Duration maxWait) {
        return new Lookup<>(query, bounds.withMaxWait(Objects.requireNonNull(maxWait, "maxWait")), concurrency, cache);
    }

    /**
     * Says how many queries run at once. On one connection they are answered one after the other, but need not wait for each
     * other's way to the server and back.
     *
     * @param concurrency positive; 1 by default
     * @return a copy with that number
     * @throws IllegalArgumentException if it is zero or negative
     */
    public Lookup<K, V> withConcurrency(int concurrency) {
        return new Lookup<>(query, bounds, ChunkBounds.positive(concurrency, "concurrency"), cache);
    }

    /**
     * Keeps what was found, for the length of one subscription. Keys under which nothing was found are looked up again each time.
     * Needs {@code com.github.ben-manes.caffeine:caffeine} on the class path.
     *
     * @param entries how many are kept at most, positive
     * @param age how long each of them is used, positive
     * @return a copy with a cache
     * @throws IllegalArgumentException if one of them is zero or negative
     */
    public Lookup<K, V> withCache(long entries, Duration age) {
        if (entries <= 0 || age.isZero() || age.isNegative()) {
            throw new IllegalArgumentException("entries and age must be positive: " + entries + ", " + age);
        }
        return new Lookup<>(query, bounds, concurrency, () -> LookupCache.of(entries, age));
    }

    /**
     * Looks up what belongs to each row.
     *
     * <p><strong>Lifetime.</strong> Each query is a plain scope, which joins a scope of the same factory around it.
     *
     * <p><strong>Endings.</strong> An error of the rows comes behind the matches of the rows before it; an error of a query ends
     * the rows. A cancel ends both.
     *
     * <p><strong>Demand.</strong> At most one batch is collected while others are being looked up.
     *
     * @param scopes where the connections come from
     * @param rows the rows
     * @param key the key of a row; {@code null} if nothing is to be looked up for it
     * @param <T> the type of the rows
     * @return emits each row, in its order, with what was found. Fails with {@link IllegalStateException} if the query gives several
     *     values for one key, and as any statement does
     */
    public <T> Flux<Match<T, V>> join(
            ConnectionScopes scopes, Publisher<? extends T> rows, Function<? super T, ? extends @Nullable K> key) {
        Objects.requireNonNull(scopes, "scopes");
        Objects.requireNonNull(rows, "rows");
        Objects.requireNonNull(key, "key");
        return join(rows, key, keys -> scopes.withConnection(connection -> found(connection, keys)));
    }

    /**
     * Looks up what belongs to each row, with a given connection; otherwise as {@link #join(ConnectionScopes, Publisher, Function)}.
     *
     * @param connection a connection
     * @param rows the rows
     * @param key the key of a row; {@code null} if nothing is to be looked up for it
     * @param <T> the type of the rows
     * @return emits each row, in its order, with what was found
     */
    public <T> Flux<Match<T, V>> join(
            Connection connection, Publisher<? extends T> rows, Function<? super T, ? extends @Nullable K> key) {
        Objects.requireNonNull(connection, "connection");
        Objects.requireNonNull(rows, "rows");
        Objects.requireNonNull(key, "key");
        return join(rows, key, keys -> found(connection, keys));
    }

    private <T> Flux<Match<T, V>> join(
            Publisher<? extends T> rows,
            Function<? super T, ? extends @Nullable K> key,
            Function<Set<K>, Mono<Map<K, V>>> find) {
        return Flux.defer(() -> {
            LookupCache<K, V> kept = cache.get();
            Failure failure = new Failure();
            return FluxChunks.<T>of(rows, bounds.of())
                    .onErrorResume(failure::keep)
                    .flatMapSequential(chunk -> matches(chunk.rows(), key, find, kept), concurrency, 1)
                    .concatWith(failure.thrown());
        });
    }

    private <T> Flux<Match<T, V>> matches(
            List<T> rows,
            Function<? super T, ? extends @Nullable K> key,
            Function<Set<K>, Mono<Map<K, V>>> find,
            @Nullable LookupCache<K, V> kept) {
        Set<K> keys = new LinkedHashSet<>();
        for (T row : rows) {
            K wanted = key.apply(row);
            if (wanted != null) {
                keys.add(wanted);
            }
        }
        Map<K, V> known = new HashMap<>();
        if (kept != null) {
            known.putAll(kept.get(keys));
            keys.removeAll(known.keySet());
        }
        Mono<Map<K, V>> all = keys.isEmpty()
                ? Mono.just(known)
                : find.apply(keys).map(found -> {
                    if (kept != null) {
                        kept.put(found);
                    }
                    known.putAll(found);
                    return known;
                });
        return all.flatMapIterable(found -> rows).map(row -> {
            K wanted = key.apply(row);
            return new Match<>(row, wanted == null ? null : known.get(wanted));
        });
    }

    private Mono<Map<K, V>> found(Connection connection, Set<K> keys) {
        return Flux.from(query.apply(connection, keys)).collect(HashMap::new, (all, entry) -> {
            if (all.putIfAbsent(entry.getKey(), entry.getValue()) != null) {
                throw new IllegalStateException(
                        "The query of a lookup gives several values for one key; let it give one, or a list of them");
            }
        });
    }
}
