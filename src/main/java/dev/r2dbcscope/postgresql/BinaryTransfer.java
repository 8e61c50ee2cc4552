package dev.r2dbcscope.postgresql;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import java.util.Collections;
import java.util.Map;
import java.util.WeakHashMap;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Whether a connection asks the server for binary values ({@code forceBinary}). The driver does not tell, so it is tried
 * once for each physical connection: the text of a range is what its bytes say only if they are text.
 */
final class BinaryTransfer {

    private static final String PROBE = "select pg_catalog.int4range(1, $1)";
    private static final String TEXT = "[1,2)";

    private static final Map<Connection, Boolean> KNOWN = Collections.synchronizedMap(new WeakHashMap<>());

    private BinaryTransfer() {}

    static boolean isKnown(Connection connection) {
        return KNOWN.containsKey(Unwrapped.postgresql(connection));
    }

    /** Whether it does; {@code false} if that is not known. */
    static boolean of(Connection connection) {
        return KNOWN.getOrDefault(Unwrapped.postgresql(connection), false);
    }

    /** Finds out. */
    static Mono<Void> find(Connection connection) {
        return Flux.defer(() ->
                        Flux.from(connection.createStatement(PROBE).bind(0, 2).execute()))
                .flatMap((Result result) -> result.map(row -> TEXT.equals(row.get(0, String.class))))
                .single()
                .doOnNext(text -> KNOWN.put(Unwrapped.postgresql(connection), !text))
                .then();
    }
}
