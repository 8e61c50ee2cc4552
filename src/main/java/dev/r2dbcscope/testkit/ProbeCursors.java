package dev.r2dbcscope.testkit;

import dev.r2dbcscope.Cursors;
import dev.r2dbcscope.testkit.ProbeCall.Kind;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcBadGrammarException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Function;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;

/** The cursors of one connection, and the statements that the engine sends for them. */
final class ProbeCursors {

    /** How the engine is told to write those statements. */
    static final Cursors STATEMENTS = new Cursors() {
        @Override
        public @Nullable Publisher<Void> prepare(Connection connection) {
            ProbeConnection probed = ProbeConnection.of(connection);
            return probed.probe().isScripted("prepare cursor")
                    ? probed.step(Kind.SETTING, "prepare cursor", () -> {})
                    : null;
        }

        @Override
        public boolean canRead(String sql, boolean holdable) {
            return sql.startsWith("query");
        }

        @Override
        public String open(Connection connection, String name, String sql, boolean holdable) {
            return "open " + name + " for " + sql;
        }

        @Override
        public String fetch(String name, int rows) {
            return "fetch " + rows + " from " + name;
        }

        @Override
        public String close(String name) {
            return "close cursor " + name;
        }

        @Override
        public String closeAll() {
            return "close all cursors";
        }
    };

    private static final Pattern OPEN = Pattern.compile("open (\\w+) for (.*)", Pattern.DOTALL);
    private static final Pattern FETCH = Pattern.compile("fetch (\\d+) from (\\w+)");
    private static final Pattern CLOSE = Pattern.compile("close cursor (\\w+)");

    private final Map<String, Queue<Object>> open = new ConcurrentHashMap<>();

    /** A statement that concerns a cursor: the name of its step, and its rows. */
    record Command(String step, Flux<?> rows) {}

    /** What the statement is for the cursors, or nothing. */
    @Nullable
    Command command(String sql, Function<String, Flux<?>> answers) {
        Matcher matcher = OPEN.matcher(sql);
        if (matcher.matches()) {
            String name = matcher.group(1);
            Flux<?> all = answers.apply(matcher.group(2));
            return new Command(
                    "open" + suffix(name),
                    all.collectList()
                            .doOnNext(rows -> open.put(name, new ArrayDeque<>(rows)))
                            .thenMany(Flux.empty()));
        }
        matcher = FETCH.matcher(sql);
        if (matcher.matches()) {
            int rows = Integer.parseInt(matcher.group(1));
            String name = matcher.group(2);
            return new Command("fetch" + suffix(name), Flux.defer(() -> Flux.fromIterable(next(name, rows))));
        }
        matcher = CLOSE.matcher(sql);
        if (matcher.matches()) {
            String name = matcher.group(1);
            return new Command("close cursor" + suffix(name), Flux.defer(() -> {
                open.remove(name);
                return Flux.empty();
            }));
        }
        return "close all cursors".equals(sql)
                ? new Command(sql, Flux.defer(() -> {
                    open.clear();
                    return Flux.empty();
                }))
                : null;
    }

    /** The first cursor has no number. */
    private static String suffix(String name) {
        String number = name.substring(name.lastIndexOf('_') + 1);
        return number.equals("1") ? "" : " " + number;
    }

    private List<Object> next(String name, int rows) {
        Queue<Object> cursor = open.get(name);
        if (cursor == null) {
            throw new R2dbcBadGrammarException("There is no cursor " + name, "34000");
        }
        List<Object> page = new ArrayList<>();
        while (page.size() < rows && !cursor.isEmpty()) {
            page.add(cursor.poll());
        }
        return page;
    }
}
