package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.r2dbc.h2.H2Connection;
import io.r2dbc.h2.H2ConnectionConfiguration;
import io.r2dbc.h2.H2ConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Wrapped;
import java.time.Duration;
import java.time.LocalDate;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Flux;

/** The handles over a driver without a dialect and without a scheduler of its own. */
class H2HandlesTest {

    private static final Duration BOUND = Duration.ofSeconds(60);
    private static final String QUERY =
            "select x as n, 'w' || x as word, dateadd(day, x, date '2020-01-01') as born from" + " system_range(1, %d)";

    private final ConnectionScopes scopes = ConnectionScopes.of(new H2ConnectionFactory(
            H2ConnectionConfiguration.builder().inMemory("handles").build()));

    private static Flux<String> later(Connection connection, int rows) {
        return Flux.from(connection.createStatement(QUERY.formatted(rows)).execute())
                .collectList()
                .delayUntil(results -> Flux.from(
                                connection.createStatement("select 1").execute())
                        .flatMap(result -> result.map(row -> row.get(0))))
                .flatMapMany(Flux::fromIterable)
                .concatMap(result -> result.map((row, metadata) -> row.get("n", Long.class)
                        + " " + row.get("word", String.class)
                        + " " + row.get("BORN", LocalDate.class)
                        + " " + row.get(2, String.class)
                        + " " + metadata.getColumnMetadatas().size()));
    }

    @ParameterizedTest
    @ValueSource(ints = {0, 1, 16, 17, 300})
    void resultsThatAreReadLaterHaveTheSameRows(int rows) {
        List<String> expected = Flux.range(1, rows)
                .map(n -> LocalDate.of(2020, 1, 1).plusDays(n))
                .map(day -> (day.toEpochDay() - LocalDate.of(2020, 1, 1).toEpochDay()) + " w"
                        + (day.toEpochDay() - LocalDate.of(2020, 1, 1).toEpochDay()) + " " + day + " " + day + " 3")
                .collectList()
                .block(BOUND);

        assertThat(scopes.withConnectionMany(connection -> later(connection, rows))
                        .collectList()
                        .block(BOUND))
                .isEqualTo(expected);
        assertThat(scopes.inTransactionMany(connection -> later(connection, rows))
                        .collectList()
                        .block(BOUND))
                .isEqualTo(expected);
        assertThat(scopes.live()).isEmpty();
    }

    @Test
    void aValueThatWasReadAheadCannotBeConvertedLater() {
        Flux<Integer> narrowed = scopes.withConnectionMany(connection -> Flux.from(
                        connection.createStatement(QUERY.formatted(1)).execute())
                .collectList()
                .flatMapMany(Flux::fromIterable)
                .concatMap(result -> result.map(row -> row.get("n", Integer.class))));

        assertThatThrownBy(() -> narrowed.blockLast(BOUND))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("java.lang.Long")
                .hasMessageContaining("subscribe to the Result when it is emitted");
        assertThat(scopes.live()).isEmpty();
    }

    @Test
    void unwrapToTheDriver() {
        assertThat(scopes.withConnectionMany(
                                connection -> Flux.just(((Wrapped<?>) connection).unwrap(H2Connection.class) != null))
                        .blockLast(BOUND))
                .isTrue();
    }
}
