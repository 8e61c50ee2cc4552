package dev.r2dbcscope.demo;

import dev.r2dbcscope.Postgres;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionFactoryProvider;
import io.r2dbc.spi.ConnectionFactories;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryOptions;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Result;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The PostgreSQL of the demo, and the schema in it that belongs to this run and is dropped at its end. */
final class DemoDatabase implements AutoCloseable {

    private static final Duration BOUND = Duration.ofSeconds(60);

    private final ConnectionFactoryOptions options;
    private final String schema;
    private final String version;
    private final List<ConnectionPool> pools = new ArrayList<>();
    private final AtomicBoolean closed = new AtomicBoolean();
    private final Thread atExit = new Thread(this::dropSchema);

    private DemoDatabase(ConnectionFactoryOptions options) {
        this.options = options;
        this.schema = "r2dbc_scope_demo_" + Long.toString(System.nanoTime() & Long.MAX_VALUE, 36);
        this.version = "PostgreSQL "
                + ask(options, "select split_part(current_setting('server_version'), ' ', 1)", String.class);
        execute("create schema " + schema);
        Runtime.getRuntime().addShutdownHook(atExit);
    }

    /** Connects to the URL, or starts an embedded server if there is none. */
    static DemoDatabase open(String url) {
        try {
            return new DemoDatabase(options(url));
        } catch (ExceptionInInitializerError e) {
            throw new CannotBeginException("The embedded PostgreSQL cannot be started: " + e.getCause());
        } catch (R2dbcException | IllegalArgumentException | IllegalStateException | UnsupportedOperationException e) {
            throw new CannotBeginException((url == null ? "The embedded PostgreSQL" : "R2DBC_URL")
                    + " cannot be used: " + String.valueOf(e.getMessage()).replaceAll("\\s+", " ")
                    + " (expected: r2dbc:postgresql://user:password@host:port/database)");
        }
    }

    private static ConnectionFactoryOptions options(String url) {
        if (url == null) {
            return options("r2dbc:postgresql://postgres:postgres@localhost:" + Postgres.port() + "/postgres");
        }
        ConnectionFactoryOptions parsed;
        try {
            parsed = ConnectionFactoryOptions.parse(url);
        } catch (IllegalArgumentException e) {
            throw new IllegalArgumentException("it is not a valid R2DBC URL"); // its message may contain a password
        }
        if (!"postgresql".equals(parsed.getValue(ConnectionFactoryOptions.DRIVER))) {
            throw new IllegalArgumentException("the demo needs the driver postgresql and makes pools of its own");
        }
        return parsed;
    }

    String version() {
        return version;
    }

    String schema() {
        return schema;
    }

    /** A pool whose connections have the given name in pg_stat_activity. It is closed with the database. */
    ConnectionPool pool(String applicationName, int size) {
        ConnectionPool pool = new ConnectionPool(ConnectionPoolConfiguration.builder(factory(applicationName))
                .initialSize(0)
                .maxSize(size)
                .build());
        pools.add(pool);
        return pool;
    }

    /** Asks for one number on a connection of its own. */
    long number(String sql) {
        return one(sql, Long.class);
    }

    /** Asks for one value on a connection of its own. */
    <T> T one(String sql, Class<T> type) {
        return ask(named("observer"), sql, type);
    }

    /** Runs SQL on a connection of its own. */
    void execute(String sql) {
        Mono.usingWhen(
                        factory("observer").create(),
                        connection -> Flux.from(connection.createStatement(sql).execute())
                                .flatMap(Result::getRowsUpdated)
                                .then(),
                        connection -> connection.close())
                .block(BOUND);
    }

    /** How many connections of that name have a transaction open, as the server sees it. */
    long openTransactions(String applicationName) {
        return number("select count(*) from pg_stat_activity where application_name = '" + name(applicationName)
                + "' and state like 'idle in transaction%'");
    }

    /** Ends every connection of that name, from the server's side. */
    void terminate(String applicationName) {
        execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = '"
                + name(applicationName) + "'");
    }

    @Override
    public void close() {
        for (ConnectionPool pool : pools) {
            pool.disposeLater().timeout(Duration.ofSeconds(5)).onErrorComplete().block(BOUND);
        }
        dropSchema();
        try {
            Runtime.getRuntime().removeShutdownHook(atExit);
        } catch (IllegalStateException e) {
            // the JVM is going down already
        }
    }

    private void dropSchema() {
        if (closed.compareAndSet(false, true)) {
            execute("set lock_timeout = '10s'; set client_min_messages = 'warning'; drop schema " + schema
                    + " cascade");
        }
    }

    private ConnectionFactory factory(String applicationName) {
        return ConnectionFactories.get(named(applicationName));
    }

    private ConnectionFactoryOptions named(String applicationName) {
        return options.mutate()
                .option(PostgresqlConnectionFactoryProvider.APPLICATION_NAME, name(applicationName))
                .option(PostgresqlConnectionFactoryProvider.SCHEMA, schema)
                .build();
    }

    private String name(String applicationName) {
        return schema + " " + applicationName;
    }

    private static <T> T ask(ConnectionFactoryOptions options, String sql, Class<T> type) {
        return Mono.usingWhen(
                        ConnectionFactories.get(options).create(),
                        connection -> Flux.from(connection.createStatement(sql).execute())
                                .flatMap(result -> result.map((row, metadata) -> row.get(0, type)))
                                .next(),
                        connection -> connection.close())
                .block(BOUND);
    }
}
