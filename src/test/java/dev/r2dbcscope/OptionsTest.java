package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;
import static org.assertj.core.api.Assertions.assertThatNullPointerException;

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
    private final ConnectionScopes scopes = ConnectionScopes.of(new ScriptedDatabase());

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
            assertNull("options", () -> scopes.transactions(null));
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
            assertRefused("timeout must be positive: " + value, () -> scopes.drain(value));
        }

        @ParameterizedTest
        @ValueSource(ints = {0, -1, Integer.MIN_VALUE})
        void numbersAreRefusedWithTheirValue(int value) {
            assertRefused("maxBufferedRows must be positive: " + value, () -> defaults.withMaxBufferedRows(value));
            assertRefused(
                    "maxStatementsInFlight must be positive: " + value,
                    () -> defaults.withMaxStatementsInFlight(value));
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
            defaults.withName("other").withListener(event -> {}).withMaxBufferedRows(1);
            transaction.withReadOnly(true).withIsolation(IsolationLevel.SERIALIZABLE);

            assertThat(ScopeOptions.defaults())
                    .hasToString("ScopeOptions[name=null, acquireTimeout=PT30S, releaseTimeout=PT5S,"
                            + " maxBufferedRows=10000, maxStatementsInFlight=64, leakThreshold=PT0S, listeners=0]");
            assertThat(TransactionOptions.defaults())
                    .hasToString("TransactionOptions[isolation=null, readOnly=null, lockWaitTimeout=null]");
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
