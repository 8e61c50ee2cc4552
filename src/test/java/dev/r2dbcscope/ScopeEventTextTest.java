package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.R2dbcDataIntegrityViolationException;
import java.time.Duration;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** The texts of events, as they come into a log: all that there is to know, and no values. */
class ScopeEventTextTest {

    private static final LiveScope SCOPE = new LiveScope(
            1,
            "orders",
            "Orders.place",
            ScopeState.EXECUTING,
            true,
            Duration.ZERO,
            Duration.ZERO,
            Duration.ZERO,
            1,
            1,
            0,
            0,
            "insert");

    private static final Duration SECOND = Duration.ofSeconds(1);
    private static final Throwable ERROR =
            new R2dbcDataIntegrityViolationException("Key (card)=(4242) already exists", "23505");

    static Stream<Arguments> texts() {
        return Stream.of(
                Arguments.of(new ScopeEvent.OpenFailed(SCOPE, ERROR), "OpenFailed[scope=SCOPE, error=ERROR]"),
                Arguments.of(
                        new ScopeEvent.StatementEnded(SCOPE, "insert", SECOND, 3, ERROR),
                        "StatementEnded[scope=SCOPE, sql=insert, took=PT1S, rows=3, error=ERROR]"),
                Arguments.of(
                        new ScopeEvent.StatementEnded(SCOPE, "insert", SECOND, 3, null),
                        "StatementEnded[scope=SCOPE, sql=insert, took=PT1S, rows=3, error=null]"),
                Arguments.of(
                        new ScopeEvent.CancelRequested(SCOPE, "insert", SECOND, SECOND.multipliedBy(2), ERROR),
                        "CancelRequested[scope=SCOPE, sql=insert, ran=PT1S, took=PT2S, error=ERROR]"),
                Arguments.of(
                        new ScopeEvent.Released(
                                SCOPE, ScopeOutcome.FAILED, TransactionOutcome.ROLLED_BACK, ERROR, true),
                        "Released[scope=SCOPE, outcome=FAILED, transaction=ROLLED_BACK, error=ERROR, destroyed=true]"),
                Arguments.of(new ScopeEvent.HookFailed(SCOPE, ERROR), "HookFailed[scope=SCOPE, error=ERROR]"),
                Arguments.of(
                        new ScopeEvent.Retrying(SCOPE, 2, SECOND, ERROR),
                        "Retrying[scope=SCOPE, attempt=2, backoff=PT1S, error=ERROR]"),
                Arguments.of(new ScopeEvent.ReleaseFailed(SCOPE, ERROR), "ReleaseFailed[scope=SCOPE, error=ERROR]"));
    }

    @ParameterizedTest
    @MethodSource("texts")
    void tellsTheScopeAndOfTheErrorItsTypeAndSqlStateOnly(ScopeEvent event, String text) {
        assertThat(event)
                .hasToString(text.replace("SCOPE", SCOPE.toString())
                        .replace("ERROR", ERROR.getClass().getName() + " [23505]"));
    }
}
