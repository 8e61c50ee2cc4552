package dev.r2dbcscope.testkit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.Rows;
import dev.r2dbcscope.testkit.ProbeCall.Kind;
import dev.r2dbcscope.testkit.ProbeCall.State;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.R2dbcBadGrammarException;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.ValidationDepth;
import io.r2dbc.spi.Wrapped;
import java.time.Duration;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.NoSuchElementException;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Publisher;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Scheduler;
import reactor.core.scheduler.Schedulers;

/** What the probe records, answers and counts. */
class ProbeConnectionFactoryTest {

    private final ProbeConnectionFactory probe = ProbeConnectionFactory.of();

    private Connection open() {
        return Mono.<Connection>fromDirect(probe.create()).blockOptional().orElseThrow();
    }

    private static void run(Publisher<?> step) {
        Flux.from(step).blockLast();
    }

    // the record -----------------------------------------------------------------------------------------------------

    @Test
    void recordsEveryStepInOrderWithItsConnectionAndKind() {
        Connection first = open();
        Connection second = open();
        run(first.beginTransaction());
        run(Rows.ints(second, "select 1"));
        run(first.createSavepoint("s"));
        run(first.rollbackTransactionToSavepoint("s"));
        run(first.releaseSavepoint("s"));
        run(first.commitTransaction());
        run(second.rollbackTransaction());
        run(second.setAutoCommit(true));
        run(second.setTransactionIsolationLevel(IsolationLevel.SERIALIZABLE));
        run(second.setStatementTimeout(Duration.ofSeconds(1)));
        run(second.setLockWaitTimeout(Duration.ofSeconds(1)));
        run(second.validate(ValidationDepth.REMOTE));
        run(first.close());

        assertThat(probe.log())
                .containsExactly(
                        "create",
                        "create",
                        "begin#1",
                        "select 1#2",
                        "savepoint#1",
                        "rollback to savepoint#1",
                        "release savepoint#1",
                        "commit#1",
                        "rollback#2",
                        "setAutoCommit#2",
                        "isolation#2",
                        "statementTimeout#2",
                        "lockWaitTimeout#2",
                        "validate#2",
                        "close#1");
        assertThat(probe.calls())
                .extracting(ProbeCall::order)
                .containsExactly(1L, 2L, 3L, 4L, 5L, 6L, 7L, 8L, 9L, 10L, 11L, 12L, 13L, 14L, 15L);
        assertThat(probe.calls())
                .extracting(ProbeCall::kind)
                .containsExactly(
                        Kind.CREATE,
                        Kind.CREATE,
                        Kind.BEGIN,
                        Kind.STATEMENT,
                        Kind.SAVEPOINT,
                        Kind.SAVEPOINT,
                        Kind.SAVEPOINT,
                        Kind.COMMIT,
                        Kind.ROLLBACK,
                        Kind.SETTING,
                        Kind.SETTING,
                        Kind.SETTING,
                        Kind.SETTING,
                        Kind.VALIDATE,
                        Kind.CLOSE);
        assertThat(probe.calls()).extracting(ProbeCall::state).containsOnly(State.COMPLETED);
        assertThat(probe.calls().get(3).connection()).isEqualTo(2);
        assertThat(probe.calls().get(3).step()).isEqualTo("select 1");
        assertThat(probe.inFlight()).isEmpty();
    }

    @Test
    void recordsNothingBeforeTheSubscription() {
        Connection connection = open();
        connection.beginTransaction();
        connection.createStatement("select 1").execute();
        probe.create();

        assertThat(probe.log()).containsExactly("create");
    }

    @Test
    void recordsTheThread() {
        Scheduler scheduler = Schedulers.newSingle("caller");
        try {
            Connection connection = open();
            Rows.ints(connection, "select 1").subscribeOn(scheduler).blockLast();
        } finally {
            scheduler.dispose();
        }

        assertThat(probe.calls().get(0).thread())
                .isEqualTo(Thread.currentThread().getName());
        assertThat(probe.calls().get(1).thread()).startsWith("caller-");
    }

    @Test
    void countsWhatIsOpen() {
        Connection first = open();
        open();
        assertThat(List.of(probe.opened(), probe.closed(), probe.live())).containsExactly(2, 0, 2);

        run(first.close());
        assertThat(List.of(probe.opened(), probe.closed(), probe.live())).containsExactly(2, 1, 1);
        assertThat(probe).hasToString("probe: 2 opened, 1 closed, in flight []");
    }

    @Test
    void showsWhatIsInFlight() {
        Connection connection = open();
        probe.on("select 1", Flux::never).on("begin", Mono::never);
        Disposable statement = Rows.ints(connection, "select 1").subscribe();
        Disposable begin = Mono.from(connection.beginTransaction()).subscribe();

        assertThat(probe.inFlight()).extracting(ProbeCall::toString).containsExactly("select 1#1", "begin#1");

        statement.dispose();
        begin.dispose();
        assertThat(probe.inFlight()).isEmpty();
        assertThat(probe.calls().subList(1, 3)).extracting(ProbeCall::state).containsOnly(State.CANCELLED);
    }

    @Test
    void showsAStatementAsInFlightUntilItsLastRowWasRead() {
        Result unread = Mono.from(open().createStatement("select 1").execute())
                .blockOptional()
                .orElseThrow();
        assertThat(probe.inFlight()).hasSize(1);

        run(unread.getRowsUpdated());
        assertThat(probe.inFlight()).isEmpty();
    }

    @Test
    void findsAUseAfterTheClose() {
        Connection connection = open();
        run(connection.close());
        assertThat(probe.violations()).isEmpty();

        run(Rows.ints(connection, "select 1"));
        run(connection.beginTransaction());

        assertThat(probe.violations()).containsExactly("select 1#1 after close", "begin#1 after close");
    }

    @Test
    void findsASecondClose() {
        Connection connection = open();
        run(connection.close());
        run(connection.close());

        assertThat(probe.violations()).containsExactly("close#1 called 2 times");
        assertThat(probe.live()).isZero();
    }

    @Test
    void forgetsTheCallsWhenToldSoButCounts() {
        probe.forgetful();
        Connection connection = open();
        run(Rows.ints(connection, "insert"));
        run(connection.close());
        run(connection.commitTransaction());

        assertThat(probe.calls()).isEmpty();
        assertThat(probe.durable()).isEmpty();
        assertThat(probe.opened()).isEqualTo(1);
        assertThat(probe.live()).isZero();
        assertThat(probe.violations()).containsExactly("commit#1 after close");
    }

    @Test
    void handsOutCopiesOfItsLists() {
        open();

        List<ProbeCall> calls = probe.calls();
        calls.clear();

        assertThat(probe.calls()).hasSize(1);
    }

    // the script -----------------------------------------------------------------------------------------------------

    @Test
    void asksTheScriptAnewForEachStep() {
        AtomicInteger asked = new AtomicInteger();
        probe.on("select 1", () -> Flux.just(asked.incrementAndGet()));
        Connection connection = open();

        assertThat(Rows.ints(connection, "select 1").blockLast()).isEqualTo(1);
        assertThat(Rows.ints(connection, "select 1").blockLast()).isEqualTo(2);
    }

    @Test
    void aScriptedStepEndsAsItsScript() {
        probe.on("begin", () -> Mono.error(new IllegalStateException("staged")));
        Connection connection = open();

        assertThatThrownBy(() -> run(connection.beginTransaction())).hasMessage("staged");
        assertThat(connection.isAutoCommit()).isTrue();
        assertThat(probe.calls().get(1).state()).isEqualTo(State.FAILED);
    }

    @Test
    void aScriptedCreateEmitsWhatItIsTold() {
        Connection connection = probe.newConnection();
        probe.on("create", () -> Mono.just(connection));

        assertThat(open()).isSameAs(connection);
        assertThat(probe.opened()).isEqualTo(1);
        assertThat(probe.log()).containsExactly("create");
    }

    @Test
    void validatesAsTheConnectionIs() {
        Connection connection = open();
        assertThat(Mono.from(connection.validate(ValidationDepth.LOCAL)).block())
                .isTrue();
        run(connection.close());
        assertThat(Mono.from(connection.validate(ValidationDepth.LOCAL)).block())
                .isFalse();
        assertThat(probe.violations()).isEmpty();
    }

    @Test
    void wantsToBeCalledOnTheSchedulerThatItWasGiven() {
        Connection connection = open();
        assertThat(((Wrapped<?>) connection).unwrap(Scheduler.class)).isNull();

        Scheduler scheduler = Schedulers.immediate();
        probe.onScheduler(() -> scheduler);
        assertThat(((Wrapped<?>) connection).unwrap(Scheduler.class)).isSameAs(scheduler);
    }

    /** Results and rows. */
    @Nested
    class Answers {

        private Flux<Result> execute(String sql, Object... rows) {
            probe.on(sql, () -> Flux.just(rows));
            return Flux.from(open().createStatement(sql).execute());
        }

        private @Nullable Object single(Object row, Function<Row, ? extends Object> read) {
            return execute("select", row)
                    .flatMap(result -> result.map((r, metadata) -> (Object) read.apply(r)))
                    .blockLast();
        }

        @Test
        void isOneRowWithTheNumberOneByDefault() {
            assertThat(Rows.ints(open(), "anything").collectList().block()).containsExactly(1);
        }

        @Test
        void readsColumnsByNameAndByIndex() {
            Map<String, Object> row = new LinkedHashMap<>();
            row.put("id", 7);
            row.put("name", "ann");

            assertThat(single(row, r -> r.get("ID", Long.class))).isEqualTo(7L);
            assertThat(single(row, r -> r.get(0, Integer.class))).isEqualTo(7);
            assertThat(single(row, r -> r.get("id", String.class))).isEqualTo("7");
            assertThat(single(row, r -> r.get(1, String.class))).isEqualTo("ann");
            assertThat(single(row, r -> r.get("name"))).isEqualTo("ann");
            assertThat(single(row, r -> r.getMetadata().contains("NAME"))).isEqualTo(true);
            assertThat(single(row, r -> r.getMetadata().contains("mane"))).isEqualTo(false);
            assertThat(single(row, r -> r.getMetadata().getColumnMetadatas().size()))
                    .isEqualTo(2);
            assertThat(single(
                            row,
                            r -> Objects.requireNonNull(r.getMetadata()
                                    .getColumnMetadata("id")
                                    .getType()
                                    .getJavaType())))
                    .isEqualTo(Integer.class);
        }

        @Test
        void aRowCanHoldNothing() {
            Map<String, @Nullable Object> row = new HashMap<>();
            row.put("name", null);

            assertThat(single(row, r -> r.get("name", String.class) == null)).isEqualTo(true);
        }

        @Test
        void refusesWhatARowDoesNotHave() {
            assertThatThrownBy(() -> single("ann", r -> r.get("other")))
                    .isInstanceOf(NoSuchElementException.class)
                    .hasMessageContaining("other");
            assertThatThrownBy(() -> single("ann", r -> r.get(0, Integer.class)))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("Column value is a String and cannot be read as Integer");
        }

        @Test
        void countsUpdates() {
            Result.UpdateCount count = () -> 3;

            assertThat(execute("update", count).flatMap(Result::getRowsUpdated).blockLast())
                    .isEqualTo(3);
            assertThat(execute("insert", 1, 2).flatMap(Result::getRowsUpdated).blockLast())
                    .isEqualTo(2);
            assertThat(execute("update", count, "row")
                            .flatMap(result -> result.map((row, metadata) -> row.get(0)))
                            .collectList()
                            .block())
                    .containsExactly("row");
        }

        @Test
        void signalsAMessageAsAnErrorUnlessSegmentsAreAskedFor() {
            R2dbcException error = new R2dbcBadGrammarException("staged");
            Result.Message message = new Result.Message() {
                @Override
                public R2dbcException exception() {
                    return error;
                }

                @Override
                public int errorCode() {
                    return 0;
                }

                @Override
                public @Nullable String sqlState() {
                    return null;
                }

                @Override
                public String message() {
                    return "staged";
                }
            };

            assertThatThrownBy(() -> execute("a", message)
                            .flatMap(result -> result.map((row, metadata) -> 1))
                            .blockLast())
                    .isSameAs(error);
            assertThatThrownBy(() -> execute("b", message)
                            .flatMap(Result::getRowsUpdated)
                            .blockLast())
                    .isSameAs(error);
            assertThat(execute("c", 1, message)
                            .flatMap(result -> result.filter(segment -> segment instanceof Result.Message)
                                    .flatMap(Mono::just))
                            .collectList()
                            .block())
                    .containsExactly(message);
        }

        @Test
        void executesOncePerBinding() {
            Connection connection = open();

            assertThat(Flux.from(connection
                                    .createStatement("insert")
                                    .bind(0, 1)
                                    .add()
                                    .bind("a", 2)
                                    .execute())
                            .flatMap(Result::getRowsUpdated)
                            .collectList()
                            .block())
                    .containsExactly(1L, 1L);
            assertThat(probe.durable()).containsExactly("insert", "insert");
        }

        @Test
        void executesTheStatementsOfABatchOneAfterTheOther() {
            probe.servingInOrder();

            assertThat(Flux.from(open().createBatch().add("a").add("b").execute())
                            .flatMap(Result::getRowsUpdated)
                            .count()
                            .block())
                    .isEqualTo(2);
            assertThat(probe.log()).containsExactly("create", "a#1", "b#1");
        }
    }

    /** What lasts. */
    @Nested
    class Durability {

        private final Connection connection = open();

        private void execute(String sql) {
            run(Rows.ints(connection, sql));
        }

        @Test
        void isAtOnceOutsideATransaction() {
            execute("a");
            assertThat(probe.durable()).containsExactly("a");
        }

        @Test
        void isWithTheCommitInsideOne() {
            run(connection.beginTransaction());
            assertThat(connection.isAutoCommit()).isFalse();
            execute("a");
            execute("b");
            assertThat(probe.durable()).isEmpty();

            run(connection.commitTransaction());
            assertThat(probe.durable()).containsExactly("a", "b");
            assertThat(connection.isAutoCommit()).isTrue();
        }

        @Test
        void isNoneAfterARollback() {
            run(connection.beginTransaction(IsolationLevel.SERIALIZABLE));
            execute("a");
            run(connection.rollbackTransaction());
            execute("b");

            assertThat(probe.durable()).containsExactly("b");
        }

        @Test
        void isNoneIfTheConnectionIsClosedInATransaction() {
            run(connection.setAutoCommit(false));
            execute("a");
            run(connection.close());

            assertThat(probe.durable()).isEmpty();
        }

        @Test
        void isNoneOfAStatementThatFailed() {
            probe.on("a", () -> Flux.just(1).concatWith(Mono.error(new IllegalStateException("staged"))));

            assertThatThrownBy(() -> execute("a")).hasMessage("staged");

            assertThat(probe.durable()).isEmpty();
        }

        @Test
        void isOfAStatementThatWasLeft() {
            probe.on("a", () -> Flux.just(1).concatWith(Flux.never()));

            Rows.ints(connection, "a").take(1).blockLast();

            assertThat(probe.durable()).containsExactly("a");
        }

        @Test
        void isWhatASavepointLeaves() {
            run(connection.beginTransaction());
            execute("a");
            run(connection.createSavepoint("one"));
            execute("b");
            run(connection.createSavepoint("two"));
            execute("c");
            run(connection.rollbackTransactionToSavepoint("two"));
            execute("d");
            run(connection.releaseSavepoint("two"));
            execute("e");
            run(connection.rollbackTransactionToSavepoint("one"));
            execute("f");
            run(connection.rollbackTransactionToSavepoint("two"));
            run(connection.commitTransaction());

            assertThat(probe.durable()).containsExactly("a", "f");
        }

        @Test
        void isWhatTheLaterSavepointOfTwoOfTheSameNameLeaves() {
            run(connection.beginTransaction());
            run(connection.createSavepoint("s"));
            execute("a");
            run(connection.createSavepoint("s"));
            execute("b");
            run(connection.rollbackTransactionToSavepoint("s"));
            run(connection.commitTransaction());

            assertThat(probe.durable()).containsExactly("a");
        }
    }

    /** What it knows beyond the SPI, if it is told to; how scopes use that is shown by their tests. */
    @Nested
    class Extras {

        @Test
        void areNoneUnlessAskedFor() {
            Connection connection = open();
            ProbeDialect dialect = new ProbeDialect();

            assertThat(dialect.supports(connection)).isFalse();
            probe.knowingCancel();
            assertThat(dialect.supports(connection)).isTrue();
            assertThat(dialect.applySettings(connection, Map.of("tenant", "a"), true))
                    .isNull();
        }

        @Test
        void areSettings() {
            Connection connection = open();
            probe.knowingSettings();
            ProbeDialect dialect = new ProbeDialect();

            run(Objects.requireNonNull(dialect.applySettings(connection, Map.of("tenant", "a"), true)));
            run(Objects.requireNonNull(dialect.applySettings(connection, Map.of("tenant", "a"), false)));
            run(dialect.restoreSettings(connection, Map.of("tenant", Optional.empty())));

            assertThat(probe.log().subList(1, 4))
                    .containsExactly("set local tenant#1", "set tenant#1", "restore tenant#1");
            assertThat(dialect.cancelRunning(connection)).isNull();
        }

        @Test
        void areCancelsOfWhatRuns() {
            probe.knowingCancel().on("select 1", Flux::never);
            Connection connection = open();
            CompletableFuture<Integer> running =
                    Rows.ints(connection, "select 1").last().toFuture();

            run(Objects.requireNonNull(new ProbeDialect().cancelRunning(connection)));

            assertThat(running)
                    .failsWithin(Duration.ofSeconds(60))
                    .withThrowableThat()
                    .havingCause()
                    .isInstanceOfSatisfying(
                            R2dbcException.class,
                            e -> assertThat(e.getSqlState()).isEqualTo("57014"));
            assertThat(probe.log()).containsExactly("create", "select 1#1", "cancel#1");
            assertThat(probe.calls().get(1).state()).isEqualTo(State.FAILED);
        }

        @Test
        void areCancelsThatDoAsTheyAreTold() {
            probe.knowingCancel().on("select 1", Flux::never).on("cancel", Mono::empty);
            Connection connection = open();
            Disposable running = Rows.ints(connection, "select 1").subscribe();

            run(Objects.requireNonNull(new ProbeDialect().cancelRunning(connection)));

            assertThat(probe.inFlight()).hasSize(1);
            running.dispose();
        }
    }
}
