package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import com.tngtech.archunit.core.domain.JavaAccess;
import com.tngtech.archunit.core.domain.JavaClass;
import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.domain.JavaField;
import com.tngtech.archunit.core.domain.JavaModifier;
import com.tngtech.archunit.core.domain.JavaType;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import com.tngtech.archunit.core.importer.ImportOption;
import java.util.Arrays;
import java.util.BitSet;
import java.util.Collection;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.util.concurrent.Queues;

/**
 * Everything in which the library can keep more than one thing, and what bounds it. Whoever adds something that keeps things
 * adds it here, with its bound. The test kit is left out: it keeps what happened in a test, for the test.
 */
class BoundsTest {

    private static final JavaClasses MAIN = new ClassFileImporter()
            .withImportOption(ImportOption.Predefined.DO_NOT_INCLUDE_TESTS)
            .importPackages("dev.r2dbcscope", "dev.r2dbcscope.pool", "dev.r2dbcscope.postgresql");

    private static final String CONSTANT = "a constant";
    private static final String OPTIONS = "what the application wrote down when it made it";

    /** Field, and what bounds it. */
    private static final Map<String, String> BOUNDS = table(
            "AppliedSettings.former: the keys of SessionSettings",
            "AppliedSettings.values: the keys of SessionSettings",
            "BeginExchange.settings: the keys of SessionSettings",
            "Bindings.values: the parameters of one statement",
            "Bridges.running: calls of ScopeBridge that have not ended, each of which the application runs",
            "CopiedRow.values: the columns of one row, which RowBudget counts",
            "CursorNames.taken: the paged reads that are open at once, each of which has a subscriber",
            "CursorRead$Page.buffer: Statement.fetchSize",
            "CursorRead$Page.parts: two",
            "Deadlock.stuck: a part of WaitGraph.blocked, for the length of one look",
            "EndSteps.kept: the types under which DriverTurn.kept was called",
            "EndSteps.steps: one for each kind of thing that the scope undoes, see the callers of DriverTurn.atEnd",
            "FactorySupply.inUse: the connections of the factory that are in use",
            "Gate.arrived: those of Gate.waiting that it has not looked at yet",
            "Gate.inFlight: ScopeOptions.withMaxStatementsInFlight",
            "Gate.parked: ScopeOptions.withMaxBufferedRows, as each has a row, and those that are in flight",
            "Gate.waiting: ScopeOptions.withMaxStatementsWaiting, and as many again that were taken back",
            "HeldBack.elements: TransactionOptions.withEmitAfterCommit",
            "LiveScopes.abandoned: LiveScopes.MOST_ABANDONED",
            "LiveScopes.finishing: scopes with hooks that run, each of which ScopeOptions.withHookTimeout ends",
            "LiveScopes.live: scopes that have a subscriber, or are giving their connection back",
            "NestedAcquireDeadlockException.scopes: the scopes of one circle",
            "Pool.CAPACITIES: the services on the class path",
            "ResultExchange.readers: the results of one statement or batch that are being read",
            "ResultExchange.undelivered: the results of one statement or batch",
            "ResultReader.buffer: ScopeOptions.withMaxBufferedRows",
            "ScopeHooks.hooks: ScopeHooks.MOST",
            "ScopeLabel.PACKAGES: the packages of this library",
            "ScopeOptions$Draft.listeners: " + OPTIONS,
            "ScopeOptions.listeners: " + OPTIONS,
            "ScopeRoot.DIALECTS: the services on the class path",
            "ScopeRoot.listeners: what the connection factory brings along when the scopes are made",
            "ScopesDrainedException.remaining: the live scopes",
            "SessionReport.listeners: " + OPTIONS,
            "SessionSettingException.keys: the keys of SessionSettings",
            "SessionSettings.values: " + OPTIONS,
            "StatementCacheCheck.passed: the connections of the pool, weakly",
            "Timers$Lane.timers: those that wait, and Timers.SWEEP that do not any more",
            "Timers.lanes: Timers.MOST_LENGTHS",
            "WaitGraph.blocked: the live scopes that wait inside others, times their depth",
            "etl.Chunk.positions: ChunkWriter.withMaxRows, withMaxBytes",
            "etl.Chunk.rows: ChunkWriter.withMaxRows, withMaxBytes",
            "etl.EtlJob.partitions: " + OPTIONS,
            "etl.FluxChunks$ChunkSubscriber.arrived: ChunkWriter.withPrefetch",
            "etl.FluxChunks$ChunkSubscriber.positions: ChunkWriter.withMaxRows, withMaxBytes",
            "etl.FluxChunks$ChunkSubscriber.rows: ChunkWriter.withMaxRows, withMaxBytes",
            "etl.Isolation$Outcome.refused: ChunkWriter.withMaxRows, withMaxBytes",
            "etl.JobControl.states: the latest one",
            "etl.JobRun$Attempt.waiting: EtlJob.partitions",
            "etl.JobRun.sieves: EtlJob.partitions",
            "etl.Lookup.query: " + CONSTANT,
            "etl.Refusal.CLASSES: " + CONSTANT,
            "etl.Rejects.afterCommit: " + CONSTANT,
            "etl.Rejects.inTransaction: " + CONSTANT,
            "etl.Sieve$Written.rejects: ChunkWriter.withMaxRows, withMaxBytes",
            "etl.TransientErrors.STATES: " + CONSTANT,
            "postgresql.BinaryCopyRow.ESCAPES: " + CONSTANT,
            "postgresql.BinaryCopyRow.SIGNATURE: " + CONSTANT,
            "postgresql.BinaryTransfer.KNOWN: the connections of the pool, weakly",
            "postgresql.ColumnTypes.columns: the columns of the written table",
            "postgresql.ColumnTypes.forms: the columns of the written table",
            "postgresql.CopyErrors.columns: " + OPTIONS,
            "postgresql.CopyFeed.EMPTY: " + CONSTANT,
            "postgresql.CopyFeed.free: the chunks that were with the driver at once, which takes one after the other",
            "postgresql.CopyFeed.queue: CopyIn.withPrefetch",
            "postgresql.CopyIn.columns: " + OPTIONS,
            "postgresql.CopyIn.typed: " + OPTIONS,
            "postgresql.CopyRow.NOTHING: " + CONSTANT,
            "postgresql.CopyRow.bytes: CopyIn.withChunkSize, or one row if that is longer",
            "postgresql.CopyRow.columns: " + OPTIONS,
            "postgresql.CopyType.ALL: " + CONSTANT,
            "postgresql.CursorQueries.CHANGES: " + CONSTANT,
            "postgresql.CursorQueries.LOCKS: " + CONSTANT,
            "postgresql.CursorQueries.QUERIES: " + CONSTANT,
            "postgresql.CursorQueries.SORTS: " + CONSTANT,
            "postgresql.HeldLocks.holdings: the advisory locks that the session holds, which the server bounds",
            "postgresql.JsonLines.parameters: " + OPTIONS,
            "postgresql.KeysetRead$Page.rows: KeysetRead.withPageSize",
            "postgresql.KeysetRead.key: " + OPTIONS,
            "postgresql.RejectingCopy$Outcome.rejected: the rows that it was given",
            "postgresql.KeysetRead.parameters: " + OPTIONS,
            "postgresql.Listen.PASSING_CLASSES: " + CONSTANT,
            "postgresql.NumericDigits.NONE: " + CONSTANT,
            "postgresql.NumericDigits.POWERS: " + CONSTANT,
            "postgresql.NumericDigits.digits: the digits of one number",
            "postgresql.OnConflict.key: " + OPTIONS,
            "postgresql.OnConflict.set: " + OPTIONS,
            "postgresql.OnConflict.updated: " + OPTIONS,
            "postgresql.Partition.parameters: two bounds",
            "postgresql.PartitionCrew$Export.partitions: PartitionedRead, which is told how many",
            "postgresql.PartitionCrew.idle: the connections of the read",
            "postgresql.PartitionCrew.vacancies: the connections of the read, as so many partitions are read at once",
            "postgresql.PartitionCrew.workers: the connections of the read",
            "postgresql.PartitionPlan.parameters: " + OPTIONS,
            "postgresql.PostgresqlDialect.NOTICES: " + CONSTANT,
            "postgresql.TextCopyRow.ELEMENT_ESCAPES: " + CONSTANT,
            "postgresql.TextCopyRow.ESCAPES: " + CONSTANT,
            "postgresql.TextCopyRow.HEX: " + CONSTANT,
            "postgresql.TextForm.HEX: " + CONSTANT,
            "postgresql.TextForm.INFINITIES: " + CONSTANT,
            "postgresql.TransactionStart.FOLLOWERS: " + CONSTANT,
            "postgresql.TransactionStart.KNOWN: " + CONSTANT,
            "postgresql.UnnestBatch.columns: the columns of the writer",
            "postgresql.UnnestBatch.keys: the rows of one batch",
            "postgresql.UnnestBatch.replaced: the rows of one batch",
            "postgresql.UnnestBatch.starts: the rows of one batch",
            "postgresql.UnnestBatch.values: the columns of one row",
            "postgresql.UnnestWriter$Plan.columns: " + OPTIONS,
            "postgresql.UnnestWriter$Plan.keyColumns: " + OPTIONS,
            "postgresql.UnnestWriter.columns: " + OPTIONS);

    /** Where an operator or a queue of Reactor keeps things for the library, and what bounds them. */
    private static final Map<String, String> OPERATORS = table(
            "CursorRead$Page Queues.unbounded: Statement.fetchSize",
            "Gate Queues.unboundedMultiproducer: ScopeOptions.withMaxStatementsWaiting",
            "HeldBack Flux.collectList: TransactionOptions.withEmitAfterCommit, as it takes no more",
            "ResultExchange Queues.unbounded: the results of one statement or batch",
            "ResultReader Queues.unbounded: ScopeOptions.withMaxBufferedRows",
            "etl.Checkpoints Flux.collectList: EtlJob.partitions",
            "etl.FluxChunks$ChunkSubscriber Queues.get: ChunkWriter.withPrefetch",
            "etl.JobControl Sinks.many: the latest state",
            "etl.Lookup Flux.collect: Lookup.withBatchSize, as a query that gives several values for one key fails",
            "postgresql.ColumnTypes Flux.collectList: the columns of one table",
            "postgresql.CopyFeed Queues.get: CopyIn.withPrefetch",
            "postgresql.JsonLines Flux.buffer: JsonLines.withRows",
            "postgresql.KeysetRead$Pages Flux.collectList: KeysetRead.withPageSize",
            "postgresql.KeysetRead$Pages Flux.onBackpressureBuffer: one page",
            "postgresql.Listen Flux.onBackpressureBuffer: Notifications.withBuffer",
            "postgresql.RejectingCopy Flux.collectList: the rows that it was given");

    private static final Set<String> KEEPING = Set.of(
            "collectList",
            "collectMap",
            "collectMultimap",
            "collectSortedList",
            "collect",
            "onBackpressureBuffer",
            "cache",
            "replay",
            "buffer",
            "bufferTimeout",
            "bufferUntil",
            "bufferWhile",
            "window",
            "groupBy",
            "expand",
            "many");

    private static Map<String, String> table(String... lines) {
        return Arrays.stream(lines)
                .map(line -> line.split(": ", 2))
                .collect(Collectors.toMap(parts -> parts[0], parts -> parts[1], (a, b) -> a, TreeMap::new));
    }

    private static Stream<JavaClass> classes() {
        return MAIN.stream().filter(type -> !type.getPackageName().startsWith("dev.r2dbcscope.testkit"));
    }

    private static String name(JavaClass type) {
        return type.getName().substring("dev.r2dbcscope.".length());
    }

    @Test
    void everythingThatKeepsManyThingsHasANamedBound() {
        Set<String> found = classes()
                .flatMap(type -> type.getFields().stream())
                .filter(BoundsTest::keepsMany)
                .map(field -> name(field.getOwner()) + "." + field.getName())
                .collect(Collectors.toCollection(TreeSet::new));

        assertThat(found).containsExactlyElementsOf(BOUNDS.keySet());
    }

    private static boolean keepsMany(JavaField field) {
        return !field.getModifiers().contains(JavaModifier.SYNTHETIC) && keepsMany(field.getType());
    }

    private static boolean keepsMany(JavaType type) {
        return type.getAllInvolvedRawTypes().stream()
                        .anyMatch(raw -> raw.isAssignableTo(Collection.class)
                                || raw.isAssignableTo(Map.class)
                                || raw.isAssignableTo(BitSet.class)
                                || raw.isAssignableTo(Sinks.Many.class))
                || type.toErasure().isArray();
    }

    @Test
    void everyOperatorThatKeepsManyThingsHasANamedBound() {
        Set<String> found = classes()
                .flatMap(type -> type.getAccessesFromSelf().stream())
                .filter(BoundsTest::keepsMany)
                .map(access -> name(access.getOriginOwner()) + " "
                        + access.getTargetOwner().getSimpleName() + "."
                        + access.getTarget().getName())
                .collect(Collectors.toCollection(TreeSet::new));

        assertThat(found).containsExactlyElementsOf(OPERATORS.keySet());
    }

    private static boolean keepsMany(JavaAccess<?> access) {
        JavaClass owner = access.getTargetOwner();
        if (owner.isEquivalentTo(Queues.class)) {
            return !access.getTarget().getName().equals("XS_BUFFER_SIZE")
                    && !access.getTarget().getName().equals("SMALL_BUFFER_SIZE");
        }
        boolean operator = owner.isEquivalentTo(Flux.class)
                || owner.isEquivalentTo(Mono.class)
                || owner.isEquivalentTo(Sinks.class);
        return operator && KEEPING.contains(access.getTarget().getName());
    }
}
