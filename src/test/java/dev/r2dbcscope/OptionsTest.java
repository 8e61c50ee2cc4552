package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;
import static org.assertj.core.api.Assertions.assertThatNullPointerException;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.TransactionDefinition;
import java.time.Duration;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** Bad input is refused when it is given, and every option is a copy. */
@SuppressWarnings("NullAway")
class OptionsTest {

    private final ScopeOptions defaults = ScopeOptions.defaults();
    private final TransactionOptions transaction = TransactionOptions.defaults();
    private final ConnectionScopes scopes = ConnectionScopes.of(ProbeConnectionFactory.of());

    @Nested
    class Null {

        @Test
        void isRefusedWithTheNameOfTheParameter() {
            assertNull("name", () -> defaults.withName(null));
            assertNull("acquireTimeout", () -> defaults.withAcquireTimeout(null));
            assertNull("releaseTimeout", () -> defaults.withReleaseTimeout(null));
            assertNull("leakThreshold", () -> defaults.withLeakThreshold(null));
            assertNull("listener", () -> defaults.withListener(null));
            assertNull("isolation", () -> transaction.withIsolation(null));
            assertNull("lockWaitTimeout", () -> transaction.withLockWaitTimeout(null));
            assertNull("connectionFactory", () -> ConnectionScopes.of(null));
            assertNull("options", () -> scopes.with(null));
            assertNull("options", () -> scopes.transactions((TransactionOptions) null));
            assertNull("function", () -> scopes.withConnection(null));
            assertNull("function", () -> scopes.withConnectionMany(null));
            assertNull("function", () -> scopes.inTransaction(null));
            assertNull("function", () -> scopes.inTransactionMany(null));
            assertNull("source", () -> scopes.connected((Mono<?>) null));
            assertNull("source", () -> scopes.connected((Flux<?>) null));
            assertNull("source", () -> scopes.transactional((Mono<?>) null));
            assertNull("source", () -> scopes.transactional((Flux<?>) null));
            assertNull("timeout", () -> scopes.drain(null));
        }

        private static void assertNull(String parameter, ThrowingCallable call) {
            assertThatNullPointerException().isThrownBy(call).withMessage(parameter);
        }
    }

    @Nested
    class OutOfRange {

        @ParameterizedTest
        @ValueSource(strings = {"PT0S", "PT-1S"})
        void durationsAreRefusedWithTheirValue(Duration value) {
            assertRefused("acquireTimeout must be positive: " + value, () -> defaults.withAcquireTimeout(value));
            assertRefused("releaseTimeout must be positive: " + value, () -> defaults.withReleaseTimeout(value));
            assertRefused("lockWaitTimeout must be positive: " + value, () -> transaction.withLockWaitTimeout(value));
            assertRefused("hookTimeout must be positive: " + value, () -> defaults.withHookTimeout(value));
            assertRefused(
                    "completionTimeout must be positive: " + value, () -> transaction.withCompletionTimeout(value));
            assertRefused("timeout must be positive: " + value, () -> scopes.drain(value));
        }

        @Test
        void limitsThatCannotBeMetAreRefusedWithTheirValue() {
            Duration negative = Duration.ofMillis(-1);
            Duration tiny = Duration.ofNanos(1);
            assertRefused("maxHold must not be negative: PT-0.001S", () -> defaults.withMaxHold(negative));
            assertRefused("maxIdle must not be negative: PT-0.001S", () -> defaults.withMaxIdle(negative));
            assertRefused(
                    "statementTimeout must not be negative: PT-0.001S", () -> defaults.withStatementTimeout(negative));
            assertRefused(
                    "statementTimeout must be at least a millisecond: PT0.000000001S",
                    () -> defaults.withStatementTimeout(tiny));
            assertRefused(
                    "lockWaitTimeout must be at least a millisecond: PT0.000000001S",
                    () -> defaults.withLockWaitTimeout(tiny));
        }

        @ParameterizedTest
        @ValueSource(ints = {0, -1, Integer.MIN_VALUE})
        void numbersAreRefusedWithTheirValue(int value) {
            assertRefused("maxBufferedRows must be positive: " + value, () -> defaults.withMaxBufferedRows(value));
            assertRefused(
                    "maxStatementsInFlight must be positive: " + value,
                    () -> defaults.withMaxStatementsInFlight(value));
            assertRefused(
                    "maxStatementsWaiting must be positive: " + value, () -> defaults.withMaxStatementsWaiting(value));
            assertRefused("max must be positive: " + value, () -> transaction.withEmitAfterCommit(value));
        }

        @ParameterizedTest
        @ValueSource(strings = {"", " ", "\t\n"})
        void blankNamesAreRefused(String name) {
            assertRefused("name must not be blank", () -> defaults.withName(name));
        }

        @Test
        void otherValuesAreRefusedWithTheirBound() {
            assertRefused(
                    "maxStatementsInFlight must be at most 200: 201", () -> defaults.withMaxStatementsInFlight(201));
            assertRefused(
                    "leakThreshold must not be negative: PT-1S",
                    () -> defaults.withLeakThreshold(Duration.ofSeconds(-1)));
            assertRefused(
                    "lockWaitTimeout must be at least a millisecond: PT0.000000001S",
                    () -> transaction.withLockWaitTimeout(Duration.ofNanos(1)));
        }

        @ParameterizedTest
        @ValueSource(strings = {"PT2562047788015H", "PT8760H"})
        void enormousTimeoutsMeanPracticallyForever(Duration enormous) {
            ConnectionScopes patient = scopes.with(defaults.withAcquireTimeout(enormous)
                    .withReleaseTimeout(enormous)
                    .withLeakThreshold(enormous));

            assertThat(patient.inTransaction(c -> Mono.just(1)).block(Duration.ofSeconds(60)))
                    .isEqualTo(1);
        }

        private static void assertRefused(String message, ThrowingCallable call) {
            assertThatIllegalArgumentException().isThrownBy(call).withMessage(message);
        }
    }

    @Nested
    class Copies {

        @Test
        void haveTheNewValueAndLeaveTheOriginalAsItIs() {
            ScopeListener listener = event -> {};
            ScopeOptions changed = defaults.withName("export")
                    .withAcquireTimeout(Duration.ofSeconds(1))
                    .withReleaseTimeout(Duration.ofSeconds(2))
                    .withMaxBufferedRows(3)
                    .withMaxStatementsInFlight(4)
                    .withLeakThreshold(Duration.ofSeconds(5))
                    .withListener(listener);

            assertThat(changed.name()).isEqualTo("export");
            assertThat(changed.acquireTimeout()).isEqualTo(Duration.ofSeconds(1));
            assertThat(changed.releaseTimeout()).isEqualTo(Duration.ofSeconds(2));
            assertThat(changed.maxBufferedRows()).isEqualTo(3);
            assertThat(changed.maxStatementsInFlight()).isEqualTo(4);
            assertThat(changed.leakThreshold()).isEqualTo(Duration.ofSeconds(5));
            assertThat(changed.listeners()).containsExactly(listener).isUnmodifiable();
            assertThat(changed.withListener(listener).listeners()).hasSize(2);
            assertThat(changed.listeners()).hasSize(1);
        }

        @Test
        void ofTheDefaultsDoNotChangeThem() {
            String before = defaults + " " + transaction;
            defaults.withName("other")
                    .withListener(event -> {})
                    .withMaxBufferedRows(1)
                    .withHookTimeout(Duration.ofSeconds(1))
                    .withMaxHold(Duration.ofSeconds(2))
                    .withMaxIdle(Duration.ofSeconds(3))
                    .withStatementTimeout(Duration.ofSeconds(4))
                    .withLockWaitTimeout(Duration.ofSeconds(5));
            transaction
                    .withReadOnly(true)
                    .withIsolation(IsolationLevel.SERIALIZABLE)
                    .withPropagation(Propagation.NESTED)
                    .withOnCancel(OnCancel.COMMIT)
                    .withCompletionTimeout(Duration.ofSeconds(6))
                    .withEmitAfterCommit(7);

            assertThat(ScopeOptions.defaults() + " " + TransactionOptions.defaults())
                    .isEqualTo(before)
                    .contains("name=null, acquireTimeout=PT30S, releaseTimeout=PT5S, hookTimeout=PT30S")
                    .contains(
                            "maxBufferedRows=10000, maxStatementsInFlight=64, maxStatementsWaiting=100000, leakThreshold=PT0S")
                    .contains("maxHold=PT0S, maxIdle=PT0S, statementTimeout=PT0S, lockWaitTimeout=PT0S")
                    .contains("propagation=REQUIRED, isolation=null, readOnly=null, lockWaitTimeout=null")
                    .contains("onCancel=ROLLBACK, completionTimeout=PT30S, emitAfterCommit=0, retry=null");
        }

        @Test
        void keepWhatWasSetBefore() {
            ScopeOptions all = defaults.withName("n")
                    .withAcquireTimeout(Duration.ofSeconds(1))
                    .withReleaseTimeout(Duration.ofSeconds(2))
                    .withHookTimeout(Duration.ofSeconds(3))
                    .withMaxBufferedRows(4)
                    .withMaxStatementsInFlight(5)
                    .withMaxStatementsWaiting(55)
                    .withLeakThreshold(Duration.ofSeconds(6))
                    .withMaxHold(Duration.ofSeconds(7))
                    .withMaxIdle(Duration.ofSeconds(8))
                    .withStatementTimeout(Duration.ofSeconds(9))
                    .withLockWaitTimeout(Duration.ofSeconds(10))
                    .withCancelGrace(Duration.ofSeconds(11))
                    .withHoldableCursors(true)
                    .withPipelinedBegin(Duration.ofSeconds(12))
                    .withName("m");
            assertThat(all)
                    .hasToString("ScopeOptions[name=m, acquireTimeout=PT1S, releaseTimeout=PT2S, hookTimeout=PT3S,"
                            + " maxBufferedRows=4, maxStatementsInFlight=5, maxStatementsWaiting=55, leakThreshold=PT6S,"
                            + " maxHold=PT7S, maxIdle=PT8S, statementTimeout=PT9S, lockWaitTimeout=PT10S, cancelGrace=PT11S,"
                            + " holdableCursors=true, pipelinedBegin=PT12S, transactionPooling=false, settings="
                            + SessionSettings.none() + ", listeners=0]");
            assertThat(defaults.withTransactionPooling(true).withName("m").transactionPooling())
                    .isTrue();
            assertThat(transaction
                            .withReadOnly(true)
                            .withIsolation(IsolationLevel.SERIALIZABLE)
                            .withPropagation(Propagation.NESTED)
                            .withOnCancel(OnCancel.COMMIT)
                            .withCompletionTimeout(Duration.ofSeconds(6))
                            .withEmitAfterCommit(7)
                            .withLockWaitTimeout(Duration.ofMillis(8)))
                    .hasToString("TransactionOptions[propagation=NESTED, isolation="
                            + IsolationLevel.SERIALIZABLE
                            + ", readOnly=true, lockWaitTimeout=PT0.008S, onCancel=COMMIT,"
                            + " completionTimeout=PT6S, emitAfterCommit=7, retry=null]");
        }

        @Test
        void ofTransactionOptionsAreTransactionDefinitions() {
            TransactionOptions changed = transaction
                    .withIsolation(IsolationLevel.SERIALIZABLE)
                    .withReadOnly(true)
                    .withLockWaitTimeout(Duration.ofMillis(7));

            assertThat(changed.getAttribute(TransactionDefinition.ISOLATION_LEVEL))
                    .isEqualTo(IsolationLevel.SERIALIZABLE);
            assertThat(changed.getAttribute(TransactionDefinition.READ_ONLY)).isTrue();
            assertThat(changed.getAttribute(TransactionDefinition.LOCK_WAIT_TIMEOUT))
                    .isEqualTo(Duration.ofMillis(7));
            assertThat(changed.getAttribute(TransactionDefinition.NAME)).isNull();
            assertThat(transaction.getAttribute(TransactionDefinition.READ_ONLY))
                    .isNull();
        }
    }
}
