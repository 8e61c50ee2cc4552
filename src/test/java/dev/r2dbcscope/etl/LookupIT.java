package dev.r2dbcscope.etl;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;

import dev.r2dbcscope.Postgres;
import dev.r2dbcscope.ScopeEvent;
import dev.r2dbcscope.WatchedPool;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Flux;
import reactor.test.StepVerifier;

class LookupIT {

    private static final Duration BOUND = Duration.ofSeconds(60);

    private final WatchedPool watched = WatchedPool.of(4);

    @BeforeEach
    void table() {
        Postgres.execute("drop table if exists lookup_names; create table lookup_names (id int primary key, name text);"
                + " insert into lookup_names select i, 'n' || i from generate_series(0, 99) i where i % 10 <> 7");
    }

    @AfterEach
    void whole() {
        watched.assertWhole();
        watched.close();
    }

    private static Lookup<Integer, String> names() {
        return Lookup.ofQuery(
                "select id, name from lookup_names where id = any($1)",
                Integer.class,
                row -> row.get("id", Integer.class),
                row -> row.get("name", String.class));
    }

    private static @Nullable String name(int id) {
        return id >= 100 || id % 10 == 7 ? null : "n" + id;
    }

    private long queries() {
        return watched.events(ScopeEvent.StatementEnded.class).size();
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 3})
    void everyRowComesOutInItsOrder(int concurrency) {
        List<Match<Integer, String>> matches = names().withBatchSize(50)
                .withConcurrency(concurrency)
                .join(watched.scopes, Flux.range(0, 1_000), row -> row % 120)
                .collectList()
                .block(BOUND);

        assertThat(matches).hasSize(1_000);
        for (int i = 0; i < 1_000; i++) {
            assertThat(matches.get(i)).isEqualTo(new Match<>(i, name(i % 120)));
        }
        assertThat(queries()).isEqualTo(20);
    }

    @Test
    void sharesTheConnectionOfAScopeAroundIt() {
        assertThat(watched.scopes
                        .withConnectionMany(c -> names().join(watched.scopes, Flux.range(0, 5_000), row -> row % 100))
                        .count()
                        .block(BOUND))
                .isEqualTo(5_000);
        assertThat(watched.scopes
                        .withConnectionMany(c -> names().join(c, Flux.range(0, 5_000), row -> row % 100))
                        .count()
                        .block(BOUND))
                .isEqualTo(5_000);
        assertThat(watched.backends()).hasSize(1);
        assertThat(queries()).isEqualTo(10);
    }

    @Test
    void aRowWithoutAKeyHasNothing() {
        StepVerifier.create(names().join(watched.scopes, Flux.range(1, 3), row -> row == 2 ? null : row))
                .expectNext(new Match<>(1, "n1"), new Match<>(2, null), new Match<>(3, "n3"))
                .expectComplete()
                .verify(BOUND);
    }

    @Test
    void whatIsNullIsNotFound() {
        Postgres.execute("update lookup_names set name = null where id = 2");

        StepVerifier.create(names().join(watched.scopes, Flux.range(1, 3), row -> row))
                .expectNext(new Match<>(1, "n1"), new Match<>(2, null), new Match<>(3, "n3"))
                .expectComplete()
                .verify(BOUND);
    }

    @Test
    void asksOnceForWhatItKeeps() {
        assertThat(names().withBatchSize(100)
                        .withCache(1_000, Duration.ofMinutes(1))
                        .join(watched.scopes, Flux.range(0, 1_000), row -> row % 10 == 7 ? 8 : row % 100)
                        .filter(match ->
                                Objects.equals(match.found(), name(match.row() % 10 == 7 ? 8 : match.row() % 100)))
                        .count()
                        .block(BOUND))
                .isEqualTo(1_000);
        assertThat(queries()).isEqualTo(1);
    }

    @Test
    void looksUpWithAFunctionToo() {
        record Name(int id, String name) {}
        Lookup<Integer, Name> lookup = Lookup.of(
                (connection, keys) -> Flux.from(connection
                                .createStatement("select id, name from lookup_names where id = any($1)")
                                .bind(0, keys.toArray(Integer[]::new))
                                .execute())
                        .flatMap(result -> result.map(
                                row -> new Name(row.get("id", Integer.class), row.get("name", String.class)))),
                Name::id);

        StepVerifier.create(lookup.join(watched.scopes, Flux.just(5, 7, 5), row -> row))
                .expectNext(new Match<>(5, new Name(5, "n5")), new Match<>(7, null), new Match<>(5, new Name(5, "n5")))
                .expectComplete()
                .verify(BOUND);
    }

    @Test
    void severalValuesForOneKeyAreAnError() {
        Lookup<Integer, String> twice = Lookup.ofQuery(
                "select id, name from lookup_names, generate_series(1, 2) where id = any($1)",
                Integer.class,
                row -> row.get("id", Integer.class),
                row -> row.get("name", String.class));

        StepVerifier.create(twice.join(watched.scopes, Flux.range(1, 3), row -> row))
                .expectErrorSatisfies(error -> assertThat(error)
                        .isInstanceOf(IllegalStateException.class)
                        .hasMessageStartingWith("The query of a lookup gives several values for one key"))
                .verify(BOUND);
    }

    @Test
    void anErrorOfTheRowsComesBehindTheMatchesBefore() {
        IllegalStateException error = new IllegalStateException("rows");

        StepVerifier.create(names().join(watched.scopes, Flux.range(1, 2).concatWith(Flux.error(error)), row -> row))
                .expectNextCount(2)
                .expectErrorSatisfies(seen -> assertThat(seen).isSameAs(error))
                .verify(BOUND);
    }

    @Test
    void anErrorOfAQueryEndsTheRows() {
        Lookup<Integer, String> bad = Lookup.ofQuery(
                "select id, name from lookup_nowhere where id = any($1)",
                Integer.class,
                row -> row.get("id", Integer.class),
                row -> row.get("name", String.class));

        StepVerifier.create(bad.join(watched.scopes, Flux.range(1, 2).concatWith(Flux.never()), row -> row))
                .expectErrorSatisfies(error -> assertThat(error).hasMessageContaining("lookup_nowhere"))
                .verify(BOUND);
    }

    @Test
    void doesNotKeepTheFirstRowsOfASlowSourceWaiting() {
        StepVerifier.create(names().join(watched.scopes, Flux.range(1, 2).concatWith(Flux.never()), row -> row))
                .expectNextCount(2)
                .thenCancel()
                .verify(BOUND);
    }

    @Test
    void refusesNonsense() {
        assertThatIllegalArgumentException().isThrownBy(() -> names().withBatchSize(0));
        assertThatIllegalArgumentException().isThrownBy(() -> names().withConcurrency(0));
        assertThatIllegalArgumentException().isThrownBy(() -> names().withCache(0, Duration.ofSeconds(1)));
        assertThatIllegalArgumentException().isThrownBy(() -> names().withCache(1, Duration.ZERO));
        assertThatIllegalArgumentException().isThrownBy(() -> names().withMaxWait(Duration.ZERO));
    }
}
