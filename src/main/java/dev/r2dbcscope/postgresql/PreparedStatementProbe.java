package dev.r2dbcscope.postgresql;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Readable;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Finds out whether the driver gives prepared statements names on the server, which it does unless its statement cache is
 * switched off.
 *
 * <p>One bound statement looks for itself among the prepared ones, which do not list the unnamed statement. It is parsed and
 * executed in one transaction of its own, so a pooler runs both on the same server. Its text has a part that no other has:
 * what others left on that server does not count. That a name is taken already (42P05) is an answer, too.
 */
final class PreparedStatementProbe {

    private static final String DUPLICATE_PREPARED_STATEMENT = "42P05";

    private PreparedStatementProbe() {}

    static Mono<Boolean> run(Connection connection) {
        return Flux.defer(() -> {
                    ThreadLocalRandom random = ThreadLocalRandom.current();
                    String token = new UUID(random.nextLong(), random.nextLong()).toString();
                    return Flux.from(connection
                            .createStatement("select pg_catalog.count(*) from pg_catalog.pg_prepared_statements"
                                    + " where pg_catalog.strpos(statement, $1) > 0 /* " + token + " */")
                            .bind(0, token)
                            .execute());
                })
                .flatMap(result -> result.map(PreparedStatementProbe::isListed))
                .single()
                .onErrorResume(
                        R2dbcException.class,
                        e -> DUPLICATE_PREPARED_STATEMENT.equals(e.getSqlState()) ? Mono.just(true) : Mono.error(e));
    }

    private static boolean isListed(Readable row) {
        Long count = row.get(0, Long.class);
        return count != null && count > 0;
    }
}
