package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Mono;

/** What a {@link NotingDriver} can do beyond the R2DBC SPI: what was scripted. */
public final class NotingDialect implements Dialect {

    @Override
    public boolean supports(Connection connection) {
        return connection instanceof NotingDriver.NotingConnection noting
                && noting.driver().isMoreThanTheSpi();
    }

    /** That of the connection under a pool, if there is one. */
    private static NotingDriver driver(Connection connection) {
        return ((NotingDriver.NotingConnection) FactorySupply.physical(connection)).driver();
    }

    private static @Nullable Mono<Void> scripted(Connection connection, String what) {
        return driver(connection).scripted(what);
    }

    @Override
    public @Nullable Publisher<Map<String, Optional<String>>> applySettings(
            Connection connection, Map<String, String> settings, boolean local) {
        Mono<Void> scripted = scripted(connection, "settings");
        return scripted == null ? null : scripted.thenReturn(Map.of());
    }

    @Override
    @SuppressWarnings("unchecked")
    public @Nullable Publisher<Boolean> keepsPreparedStatements(Connection connection) {
        return (Publisher<Boolean>) driver(connection).answer("cache");
    }

    @Override
    public @Nullable Publisher<Void> resetTimeouts(Connection connection) {
        return scripted(connection, "reset timeouts");
    }

    @Override
    public @Nullable Publisher<?> afterCancelledFetch(Connection connection) {
        return scripted(connection, "after cancelled fetch");
    }

    @Override
    public @Nullable Publisher<Void> cancelRunning(Connection connection) {
        return scripted(connection, "cancel");
    }

    @Override
    public @Nullable Runnable retain(Result.Segment segment) {
        return segment instanceof NotingDriver.Retainable retainable ? retainable.retain() : null;
    }

    /** It has some for queries that are called paged; what else has a fetch size is executed as the driver does it. */
    @Override
    public Cursors cursors() {
        return new Cursors() {
            @Override
            public boolean canRead(String sql, boolean holdable) {
                return sql.startsWith("paged");
            }

            @Override
            public String open(Connection connection, String name, String sql, boolean holdable) {
                return "open " + sql;
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
}
