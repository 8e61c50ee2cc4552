package dev.r2dbcscope.testkit;

import dev.r2dbcscope.LiveScope;
import dev.r2dbcscope.ScopeState;

/** A live scope in one line, as it is shown to people. */
final class ScopeText {

    private ScopeText() {}

    static String of(LiveScope scope) {
        StringBuilder text = new StringBuilder("scope '")
                .append(scope.name())
                .append("' assembled at ")
                .append(scope.origin());
        if (scope.state() == ScopeState.WAITING) {
            return text.append(" has waited for a connection for ")
                    .append(scope.waited().toMillis())
                    .append(" ms")
                    .toString();
        }
        text.append(" holds a connection: ").append(scope.state());
        if (scope.statement() != null) {
            text.append(" \"").append(scope.statement()).append('"');
        }
        return text.append(", held for ")
                .append(scope.held().toMillis())
                .append(" ms, statements begun: ")
                .append(scope.statements())
                .append(", in flight: ")
                .append(scope.statementsInFlight())
                .append(", waiting at the gate: ")
                .append(scope.statementsWaiting())
                .toString();
    }
}
