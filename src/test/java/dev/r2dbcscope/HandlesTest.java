package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.r2dbc.spi.Batch;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.Statement;
import io.r2dbc.spi.ValidationDepth;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.subscriber.TestSubscriber;

/** What a scope's handles do after its end, and what becomes of work that nobody waited for. */
class HandlesTest extends FormContract {

    @Nested
    class AfterTheEnd {

        private final AtomicReference<Connection> connection = new AtomicReference<>();
        private final AtomicReference<Statement> statement = new AtomicReference<>();
        private final AtomicReference<Publisher<? extends Result>> execution = new AtomicReference<>();
        private final AtomicReference<Batch> batch = new AtomicReference<>();
        private final AtomicReference<Result> result = new AtomicReference<>();
        private final AtomicReference<Row> row = new AtomicReference<>();

        private Mono<Integer> keepEverything(Connection c) {
            connection.set(c);
            statement.set(c.createStatement("select 1"));
            execution.set(statement.get().execute());
            batch.set(c.createBatch().add("select 2"));
            return Flux.from(c.createStatement("select 3").execute())
                    .doOnNext(result::set)
                    .flatMap(r -> r.map((values, metadata) -> {
                        row.set(values);
                        return values.get(0, Integer.class);
                    }))
                    .last();
        }

        @Test
        @Tag("lifecycle-52")
        void everyHandleFailsAndNothingIsSent() {
            assertThat(runToEnd(this::keepEverything).isTerminatedComplete()).isTrue();
            List<String> before = database.log();
            Connection c = connection.get();

            assertThrows(() -> c.createStatement("select 4"), "completed");
            assertThrows(c::createBatch, "completed");
            assertThrows(c::getMetadata, "completed");
            assertThrows(c::isAutoCommit, "completed");
            assertThrows(() -> statement.get().execute(), "completed");
            assertThrows(() -> batch.get().execute(), "completed");
            assertThrows(() -> row.get().get(0), "completed");
            assertThrows(() -> row.get().get(0, Integer.class), "completed");
            assertFails(execution.get());
            assertFails(result.get().getRowsUpdated());
            assertFails(result.get().map((values, metadata) -> 1));
            assertFails(result.get().flatMap(segment -> Mono.just(1)));
            assertFails(c.beginTransaction());
            assertFails(c.commitTransaction());
            assertFails(c.rollbackTransaction());
            assertFails(c.createSavepoint("s"));
            assertFails(c.setTransactionIsolationLevel(IsolationLevel.SERIALIZABLE));
            assertFails(c.setLockWaitTimeout(Duration.ofSeconds(1)));
            assertThat(Mono.from(c.validate(ValidationDepth.REMOTE)).block(PATIENCE))
                    .as("the SPI lets a validation emit no error")
                    .isFalse();
            assertThat(Mono.from(c.close()).materialize().block(PATIENCE))
                    .satisfies(signal -> assertThat(signal.isOnComplete()).isTrue());
            assertThat(database.log()).isEqualTo(before);
        }

        @Test
        @Tag("lifecycle-52")
        void saysThatTheScopeFailed() {
            runToEnd(c -> keepEverything(c).then(Mono.error(new IllegalStateException("of the user"))));

            assertThrows(
                    () -> connection.get().createStatement("select 4"), "failed with java.lang.IllegalStateException");
        }

        @Test
        @Tag("lifecycle-52")
        void saysThatTheScopeWasCancelled() {
            TestSubscriber<Integer> subscriber = run(c -> keepEverything(c).then(Mono.never()));
            Await.until(() -> row.get() != null, () -> "no row");
            subscriber.cancel();
            Await.until(() -> database.live() == 0, () -> "still open");

            assertThrows(() -> connection.get().createStatement("select 4"), "cancelled");
        }

        private void assertThrows(ThrowingCallable use, String ending) {
            assertThatThrownBy(use).satisfies(error -> assertClosed(error, ending));
        }

        private void assertFails(Publisher<?> publisher) {
            assertThatThrownBy(() -> Flux.from(publisher).blockLast(PATIENCE))
                    .satisfies(error -> assertClosed(error, "completed"));
        }

        private static void assertClosed(Throwable error, String ending) {
            assertThat(error)
                    .isInstanceOfSatisfying(ScopeClosedException.class, closed -> {
                        assertThat(closed.scopeName()).isEqualTo("contract");
                        assertThat(closed.scopeOrigin()).contains("Form.java:");
                    })
                    .hasMessageContaining("The scope has ended (" + ending)
                    .hasMessageContaining(" ms ago)")
                    .hasMessageContaining("assembled at ");
        }
    }

    @Nested
    class WorkThatNobodyWaitedFor {

        @Test
        @Tag("lifecycle-53")
        void aResultThatIsNeverReadIsReadToItsEndBeforeTheRelease() {
            StringBuffer read = new StringBuffer();
            database.on("select many", () -> Flux.range(1, 100).doOnComplete(() -> read.append("read, ")));
            database.on("close", () -> Mono.fromRunnable(() -> read.append("closed")));

            TestSubscriber<Object> subscriber = runToEnd(
                    c -> Flux.from(c.createStatement("select many").execute()).then(Mono.empty()));

            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(read).hasToString("read, closed");
        }

        @Test
        @Tag("lifecycle-61")
        void anAdmittedStatementIsAwaitedAndALaterOneIsRefused() {
            Step<Integer> slow = new Step<>();
            database.on("insert slow", slow);
            AtomicReference<Connection> escaped = new AtomicReference<>();
            TestSubscriber<Integer> detached = TestSubscriber.create();

            TestSubscriber<Integer> subscriber = run(c -> {
                escaped.set(c);
                Rows.ints(c, "insert slow").subscribe(detached);
                return Mono.just(1);
            });
            slow.awaitReached();
            Await.until(
                    () -> scopes.live().get(0).state() == ScopeState.EXITING, () -> "not exiting: " + scopes.live());

            assertThat(subscriber.isTerminated()).isFalse();
            assertThat(database.log()).doesNotContain("commit#1", "close#1");
            assertThatThrownBy(() -> escaped.get().createStatement("insert late"))
                    .isInstanceOf(ScopeClosedException.class);

            slow.complete(5);
            subscriber.block(PATIENCE);
            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(detached.getReceivedOnNext()).containsExactly(5);
            assertThat(database.log())
                    .isEqualTo(isTransactional() ? steps("insert slow#1", "commit#1") : steps("insert slow#1"));
        }
    }
}
