package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Mono;

/** The session settings of a {@link ScriptedDatabase}. */
public final class ScriptedDialect implements Dialect {

    @Override
    public boolean supports(Connection connection) {
        return connection instanceof ScriptedDatabase.ScriptedConnection scripted && scripted.knowsSettings();
    }

    @Override
    public Publisher<Map<String, Optional<String>>> applySettings(
            Connection connection, Map<String, String> settings, boolean local) {
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

    private static Mono<Void> step(Connection connection, String step) {
        return ((ScriptedDatabase.ScriptedConnection) connection).step(step);
    }
}
