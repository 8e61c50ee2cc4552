package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import java.util.Collections;
import java.util.Set;
import java.util.WeakHashMap;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Makes sure, once for each physical connection, that its driver keeps no prepared statements on a database session that it
 * shares with others. A name that two clients gave to different statements makes one of them run the other's, and get wrong
 * results without an error.
 */
final class StatementCacheCheck {

    private final Set<Connection> passed = Collections.synchronizedSet(Collections.newSetFromMap(new WeakHashMap<>()));

    /** Fails, and has the connection destroyed, if it does. The connection is idle and outside a transaction. */
    Mono<Void> run(Session session, Connection connection) {
        Connection physical = FactorySupply.physical(connection);
        Publisher<Boolean> asked =
                passed.contains(physical) ? null : session.dialect().keepsPreparedStatements(connection);
        if (asked == null) {
            return Mono.empty();
        }
        return Shield.lazily(() -> Flux.from(asked).concatMap(keeps -> {
            if (keeps) {
                session.spend();
                return Mono.error(TransactionPoolingException.statementCache(session.label()));
            }
            passed.add(physical);
            return Mono.empty();
        }));
    }
}
