package dev.r2dbcscope.demo;

import dev.r2dbcscope.LiveScope;
import dev.r2dbcscope.ScopeState;
import java.time.Duration;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.stream.Collectors;

/** Who holds what: {@code ConnectionScopes.live()} as a small table. */
final class LiveTable {

    private static final int MOST_ROWS = 6;

    private LiveTable() {}

    static void print(Screen screen, String when, List<LiveScope> scopes) {
        screen.line(
                "  live() %s: %d hold a connection, %d wait", when, holding(scopes), scopes.size() - holding(scopes));
        TextTable table = new TextTable(
                "scope",
                "assembled at",
                "state",
                "waited",
                "held",
                "in database",
                "statements",
                "buffered",
                "statement");
        for (LiveScope scope : scopes.subList(0, Math.min(MOST_ROWS, scopes.size()))) {
            table.row(
                    scope.name(),
                    scope.origin().replaceAll(".*\\((.*)\\)", "$1"),
                    scope.state().toString(),
                    seconds(scope.waited()),
                    seconds(scope.held()),
                    seconds(scope.inDatabase()),
                    String.format(Locale.ROOT, "%,d", scope.statements()),
                    String.format(Locale.ROOT, "%,d", scope.rowsBuffered()),
                    scope.statement() == null ? "-" : scope.statement());
        }
        table.print(screen, "    ");
        if (scopes.size() > MOST_ROWS) {
            screen.line("    ... and %d more", scopes.size() - MOST_ROWS);
        }
    }

    static long holding(List<LiveScope> scopes) {
        return scopes.stream()
                .filter(scope -> scope.state() != ScopeState.WAITING)
                .count();
    }

    /**
     * How many held a connection at the instant between two snapshots. One snapshot does not tell: it looks at one scope after
     * the other, while connections pass from those that it has looked at to those that it has not.
     */
    static long holdingInBoth(List<LiveScope> first, List<LiveScope> second) {
        Set<Long> before = holders(first);
        return holders(second).stream().filter(before::contains).count();
    }

    private static Set<Long> holders(List<LiveScope> scopes) {
        return scopes.stream()
                .filter(scope -> scope.state() != ScopeState.WAITING && scope.state() != ScopeState.EXITING)
                .map(LiveScope::id)
                .collect(Collectors.toSet());
    }

    private static String seconds(Duration duration) {
        return String.format(Locale.ROOT, "%.2f s", duration.toMillis() / 1000.0);
    }
}
