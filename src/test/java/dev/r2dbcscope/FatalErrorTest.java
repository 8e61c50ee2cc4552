package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.function.Function;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.subscriber.TestSubscriber;

/** Errors that Reactor throws instead of signalling them end a scope like any other error. */
class FatalErrorTest extends FormContract {

    @Test
    @Tag("lifecycle-6")
    void ofTheFunctionReachesTheSubscriber() {
        NoClassDefFoundError fatal = new NoClassDefFoundError("of the function");

        assertFails(fatal, c -> {
            throw fatal;
        });
    }

    @Test
    @Tag("lifecycle-8")
    void ofAnOperatorInTheBodyReachesTheSubscriber() {
        StackOverflowError fatal = new StackOverflowError("of the body");

        assertFails(
                fatal,
                c -> Flux.range(1, 3).map(i -> {
                    throw fatal;
                }));
    }

    @Test
    @Tag("lifecycle-8")
    void ofAMappingFunctionReachesTheSubscriber() {
        NoClassDefFoundError fatal = new NoClassDefFoundError("of a mapping function");

        assertFails(
                fatal,
                c -> Flux.from(c.createStatement("select 1").execute())
                        .flatMap(result -> result.map((row, metadata) -> {
                            throw fatal;
                        })));
    }

    @Test
    @Tag("lifecycle-35")
    void ofAnOperatorBehindAStatementReachesTheSubscriber() {
        NoClassDefFoundError fatal = new NoClassDefFoundError("behind a statement");

        assertFails(
                fatal,
                c -> Rows.ints(c, "select 1").map(i -> {
                    throw fatal;
                }));
    }

    @Test
    @Tag("lifecycle-35")
    void ofAnOperatorBehindASavepointReachesTheSubscriber() {
        NoClassDefFoundError fatal = new NoClassDefFoundError("behind a savepoint");
        database.on("savepoint", () -> Mono.delay(Duration.ofMillis(1)));

        TestSubscriber<Integer> subscriber =
                runToEnd(c -> Mono.from(c.createSavepoint("s")).thenReturn(1).map(i -> {
                    throw fatal;
                }));

        assertThat(subscriber.expectTerminalError()).isSameAs(fatal);
        assertThat(database.live()).isZero();
    }

    private void assertFails(Throwable fatal, Function<Connection, Publisher<Integer>> body) {
        TestSubscriber<Integer> subscriber = runToEnd(body);

        assertThat(subscriber.expectTerminalError()).isSameAs(fatal);
        assertThat(database.log())
                .filteredOn(step -> !step.startsWith("select"))
                .isEqualTo(rolledBack());
        assertThat(events(ScopeEvent.Released.class))
                .singleElement()
                .satisfies(released -> assertThat(released.error()).isSameAs(fatal));
    }
}
