package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Mono;

/** What a {@link ScriptedDatabase} can do beyond the R2DBC SPI: session settings, and cancelling what runs. */
public final class ScriptedDialect implements Dialect {

    @Override
    public boolean supports(Connection connection) {
        return connection instanceof ScriptedDatabase.ScriptedConnection scripted
                && (scripted.knowsSettings() || scripted.knowsCursors() || scripted.knowsCancel());
    }

    @Override
    public @Nullable Publisher<Map<String, Optional<String>>> applySettings(
            Connection connection, Map<String, String> settings, boolean local) {
        if (!((ScriptedDatabase.ScriptedConnection) connection).knowsSettings()) {
            return null;
        }
        Map<String, Optional<String>> former = new LinkedHashMap<>();
        settings.keySet().forEach(key -> former.put(key, Optional.empty()));
        return step(connection, (local ? "set local " : "set ") + String.join(",", settings.keySet()))
                .thenReturn(former);
    }

    @Override
    public Publisher<Void> restoreSettings(Connection connection, Map<String, Optional<String>> former) {
        return step(connection, "restore " + String.join(",", former.keySet()));
    }

    @Override
    public @Nullable Map<String, String> timeoutSettings(Duration statementTimeout, Duration lockWaitTimeout) {
        Map<String, String> settings = new LinkedHashMap<>();
        if (!statementTimeout.isZero()) {
            settings.put("statement", statementTimeout.toString());
        }
        if (!lockWaitTimeout.isZero()) {
            settings.put("lock", lockWaitTimeout.toString());
        }
        return settings;
    }

    @Override
    public Cursors cursors() {
        return new Cursors() {
            @Override
            public boolean canRead(String sql, boolean holdable) {
                return sql.startsWith("query");
            }

            @Override
            public String open(Connection connection, String name, String sql, boolean holdable) {
                return "open";
            }

            @Override
            public String fetch(String name, int rows) {
                return "fetch";
            }

            @Override
            public String close(String name) {
                return "close cursor";
            }

            @Override
            public String closeAll() {
                return "close all cursors";
            }
        };
    }

    @Override
    public @Nullable Publisher<Void> cancelRunning(Connection connection) {
        return ((ScriptedDatabase.ScriptedConnection) connection).knowsCancel() ? step(connection, "cancel") : null;
    }

    private static Mono<Void> step(Connection connection, String step) {
        return ((ScriptedDatabase.ScriptedConnection) connection).step(step);
    }
}
