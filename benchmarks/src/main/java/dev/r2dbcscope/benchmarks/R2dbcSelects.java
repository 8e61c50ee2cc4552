package dev.r2dbcscope.benchmarks;

import dev.r2dbcscope.ConnectionScopes;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.spi.Connection;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.IntFunction;
import java.util.function.Supplier;
import org.jooq.DSLContext;
import org.jooq.Field;
import org.jooq.Record;
import org.jooq.SQLDialect;
import org.jooq.Table;
import org.jooq.impl.DSL;
import org.jooq.impl.SQLDataType;
import org.springframework.r2dbc.connection.R2dbcTransactionManager;
import org.springframework.r2dbc.core.DatabaseClient;
import org.springframework.transaction.reactive.TransactionalOperator;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * The ways of R2DBC to read a row by its key. All of them use one pool, so that they find their connections on the same event
 * loops.
 */
final class R2dbcSelects {

    static final String RAW = "r2dbc-pool, usingWhen";
    static final String DATABASE_CLIENT = "DatabaseClient";
    static final String JOOQ = "jOOQ";
    static final String SCOPE = "scope";
    static final String SCOPE_DATABASE_CLIENT = "scope, DatabaseClient";

    private static final Table<Record> NOTES = DSL.table(DSL.name("notes"));
    private static final Field<Integer> ID = DSL.field(DSL.name("id"), SQLDataType.INTEGER);
    private static final Field<String> NOTE = DSL.field(DSL.name("note"), SQLDataType.CLOB);

    private final ConnectionPool pool;
    private final DatabaseClient client;
    private final TransactionalOperator transaction;
    private final DSLContext jooq;
    private final ConnectionScopes scopes;
    private final DatabaseClient scopedClient;

    R2dbcSelects(ConnectionPool pool) {
        this.pool = pool;
        client = DatabaseClient.create(pool);
        transaction = TransactionalOperator.create(new R2dbcTransactionManager(pool));
        jooq = DSL.using(pool, SQLDialect.POSTGRES);
        scopes = ConnectionScopes.of(pool);
        scopedClient = DatabaseClient.create(scopes.connectionFactory());
    }

    /** One statement on a connection of the pool. */
    Map<String, Supplier<CompletionStage<String>>> plain() {
        Map<String, Supplier<CompletionStage<String>>> sides = new LinkedHashMap<>();
        sides.put(RAW, call(this::raw));
        sides.put(DATABASE_CLIENT, call(id -> select(client, id)));
        sides.put(JOOQ, call(this::jooq));
        sides.put(SCOPE, call(id -> scopes.withConnection(connection -> select(connection, id))));
        sides.put(SCOPE_DATABASE_CLIENT, call(id -> select(scopedClient, id).as(scopes::connected)));
        return sides;
    }

    /** The same statement in a transaction of its own. */
    Map<String, Supplier<CompletionStage<String>>> transactional() {
        Map<String, Supplier<CompletionStage<String>>> sides = new LinkedHashMap<>();
        sides.put(RAW, call(this::rawTransaction));
        sides.put(DATABASE_CLIENT, call(id -> select(client, id).as(transaction::transactional)));
        sides.put(SCOPE, call(id -> scopes.inTransaction(connection -> select(connection, id))));
        return sides;
    }

    private static Supplier<CompletionStage<String>> call(IntFunction<Mono<String>> select) {
        return () -> {
            int id = Notes.anyId();
            return select.apply(id).map(note -> Notes.require(id, note)).toFuture();
        };
    }

    private Mono<String> raw(int id) {
        return Mono.usingWhen(pool.create(), connection -> select(connection, id), Connection::close);
    }

    private Mono<String> rawTransaction(int id) {
        return Mono.usingWhen(
                pool.create(),
                connection -> Mono.from(connection.beginTransaction()).then(select(connection, id)),
                connection -> Mono.from(connection.commitTransaction()).then(Mono.from(connection.close())),
                (connection, error) ->
                        Mono.from(connection.rollbackTransaction()).then(Mono.from(connection.close())),
                connection -> Mono.from(connection.rollbackTransaction()).then(Mono.from(connection.close())));
    }

    private Mono<String> jooq(int id) {
        return Flux.from(jooq.select(NOTE).from(NOTES).where(ID.eq(id)))
                .map(row -> row.get(NOTE))
                .single();
    }

    private static Mono<String> select(Connection connection, int id) {
        return Flux.from(connection.createStatement(Notes.SELECT).bind(0, id).execute())
                .flatMap(result -> result.map(row -> row.get(0, String.class)))
                .single();
    }

    private static Mono<String> select(DatabaseClient client, int id) {
        return client.sql(Notes.SELECT)
                .bind(0, id)
                .map(row -> row.get(0, String.class))
                .one();
    }

    /** On how many threads the rows of the pool's connections come. */
    int threads() {
        Set<Thread> threads = ConcurrentHashMap.newKeySet();
        Flux.range(0, 400)
                .flatMap(i -> raw(Notes.anyId()).doOnNext(note -> threads.add(Thread.currentThread())), 32)
                .blockLast(Server.LONG);
        return threads.size();
    }
}
