package dev.r2dbcscope.testkit;

import dev.r2dbcscope.Cursors;
import dev.r2dbcscope.Dialect;
import dev.r2dbcscope.PipelinedBegin;
import dev.r2dbcscope.testkit.ProbeCall.Kind;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Mono;

/**
 * What a {@link ProbeConnectionFactory} can do beyond the R2DBC SPI, if it was told to: session settings, cursors,
 * BEGIN with a statement right behind, and cancelling what runs. Found by {@link java.util.ServiceLoader}; stateless and thread-safe.
 */
public final class ProbeDialect implements Dialect {

    /** Called by {@link java.util.ServiceLoader}. */
    public ProbeDialect() {}

    @Override
    public boolean supports(Connection connection) {
        return connection instanceof ProbeConnection probed && probed.probe().knowsMoreThanTheSpi();
    }

    @Override
    public @Nullable Publisher<Map<String, Optional<String>>> applySettings(
            Connection connection, Map<String, String> settings, boolean local) {
        if (!ProbeConnection.of(connection).probe().knowsSettings()) {
            return null;
        }
        Map<String, Optional<String>> former = new LinkedHashMap<>();
        settings.keySet().forEach(key -> former.put(key, Optional.empty()));
        return setting(connection, (local ? "set local " : "set ") + String.join(",", settings.keySet()))
                .thenReturn(former);
    }

    @Override
    public Publisher<Void> restoreSettings(Connection connection, Map<String, Optional<String>> former) {
        return setting(connection, "restore " + String.join(",", former.keySet()));
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
    public @Nullable PipelinedBegin pipelinedBegin(Connection connection) {
        return ProbeConnection.of(connection).probe().pipelinesBegin() ? ProbeBegin.STEPS : null;
    }

    @Override
    public Cursors cursors() {
        return ProbeCursors.STATEMENTS;
    }

    @Override
    public @Nullable Publisher<Void> cancelRunning(Connection connection) {
        ProbeConnection probed = ProbeConnection.of(connection);
        return probed.probe().knowsCancel() ? probed.cancelRunning() : null;
    }

    private static Mono<Void> setting(Connection connection, String step) {
        return ProbeConnection.of(connection).step(Kind.SETTING, step, () -> {});
    }
}
