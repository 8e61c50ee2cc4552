package dev.r2dbcscope.etl;

import com.github.benmanes.caffeine.cache.Cache;
import com.github.benmanes.caffeine.cache.Caffeine;
import java.time.Duration;
import java.util.Map;
import java.util.Set;

/** What was found before. The only class that knows Caffeine. */
final class LookupCache<K, V> {

    private final Cache<K, V> cache;

    private LookupCache(Cache<K, V> cache) {
        this.cache = cache;
    }

    static <K, V> LookupCache<K, V> of(long entries, Duration age) {
        return new LookupCache<>(
                Caffeine.newBuilder().maximumSize(entries).expireAfterWrite(age).build());
    }

    Map<K, V> get(Set<K> keys) {
        return cache.getAllPresent(keys);
    }

    void put(Map<K, V> found) {
        cache.putAll(found);
    }
}
