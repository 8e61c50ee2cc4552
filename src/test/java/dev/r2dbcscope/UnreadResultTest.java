package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcDataIntegrityViolationException;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Result;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.function.Function;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.subscriber.TestSubscriber;

/** Drivers deliver an error of the server as a segment of the result: it is one even if nobody reads the result. */
class UnreadResultTest {

    @RegisterExtension
    final Witness witness = new Witness();

    private final List<ScopeEvent> events = new ArrayList<>();
    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final ConnectionScopes scopes = witness.watch(
            ConnectionScopes.of(database).with(ScopeOptions.defaults().withListener(events::add)));
    private final R2dbcException duplicate = new R2dbcDataIntegrityViolationException("duplicate key", "23505");

    @Test
    @Tag("lifecycle-67")
    void failsThenOfAStatement() {
        assertFails(c -> execute(c).then(Mono.just("success")));
    }

    @Test
    @Tag("lifecycle-67")
    void failsThenOfABatch() {
        assertFails(c -> Flux.from(c.createBatch().add("select 1").add("insert").execute())
                .then(Mono.just("success")));
    }

    @Test
    void failsAFilteredCountThatTellsTheListeners() {
        assertFails(c -> execute(c)
                .flatMap(result -> result.filter(segment -> true).getRowsUpdated())
                .map(String::valueOf));
    }

    @Test
    void tellsTheListenersOfAnErrorThatFlatMapIgnores() {
        database.on("insert", () -> Flux.just(message("23505")));

        List<Integer> read = scopes.withConnectionMany(
                        c -> execute(c).flatMap(result -> result.flatMap(segment -> Mono.just(1))))
                .collectList()
                .block(FormContract.PATIENCE);

        assertThat(read).containsExactly(1);
        assertThat(errorOfStatement()).isSameAs(duplicate);
    }

    @Test
    @Tag("lifecycle-68")
    void givesItsErrorToALateReader() {
        database.on("insert", () -> Flux.just(message("23505")));
        TestSubscriber<String> subscriber = TestSubscriber.create();

        scopes.withConnectionMany(c -> {
                    List<Result> kept = new ArrayList<>();
                    execute(c).subscribe(kept::add, e -> {});
                    return Flux.from(Objects.requireNonNull(kept.get(0)).getRowsUpdated())
                            .map(String::valueOf);
                })
                .subscribe(subscriber);
        subscriber.block(FormContract.PATIENCE);

        assertThat(subscriber.expectTerminalError()).isSameAs(duplicate);
    }

    @Test
    void succeedsWhenItHoldsOnlyAWarning() {
        database.on("insert", () -> Flux.just(message("01000")));

        assertThat(scopes.withConnection(c -> execute(c).then(Mono.just("success")))
                        .block(FormContract.PATIENCE))
                .isEqualTo("success");
        assertThat(errorOfStatement()).isNull();
    }

    private static Flux<Result> execute(Connection connection) {
        return Flux.from(connection.createStatement("insert").execute());
    }

    private void assertFails(Function<Connection, Publisher<String>> body) {
        database.on("insert", () -> Flux.just(message("23505")));
        TestSubscriber<String> subscriber = TestSubscriber.create();
        scopes.inTransactionMany(body).subscribe(subscriber);
        subscriber.block(FormContract.PATIENCE);

        assertThat(subscriber.expectTerminalError()).isSameAs(duplicate);
        assertThat(errorOfStatement()).isSameAs(duplicate);
        assertThat(database.log()).endsWith("rollback#1", "close#1");
    }

    private @org.jspecify.annotations.Nullable Throwable errorOfStatement() {
        List<ScopeEvent.StatementEnded> ended = events.stream()
                .filter(ScopeEvent.StatementEnded.class::isInstance)
                .map(ScopeEvent.StatementEnded.class::cast)
                .toList();
        assertThat(ended).hasSize(1);
        return ended.get(0).error();
    }

    private Result.Message message(String state) {
        return new Result.Message() {
            @Override
            public R2dbcException exception() {
                return duplicate;
            }

            @Override
            public int errorCode() {
                return 0;
            }

            @Override
            public String sqlState() {
                return state;
            }

            @Override
            public String message() {
                return "duplicate key";
            }
        };
    }
}
