package dev.r2dbcscope.benchmarks;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.TransactionOptions;
import io.r2dbc.pool.ConnectionPool;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.springframework.r2dbc.core.DatabaseClient;
import reactor.core.publisher.Flux;
import reactor.netty.http.client.HttpClient;

/**
 * How fast, and in how much memory, a table is exported as NDJSON over HTTP: as records that Jackson renders, and as JSON that
 * the database renders. Server, client and all sides are in this program; the client counts the lines.
 */
final class NdjsonBenchmark implements Part {

    private static final int CONNECTIONS = 2;

    @Override
    public String name() {
        return "ndjson";
    }

    @Override
    public String question() {
        return "A table as NDJSON over HTTP on loopback";
    }

    @Override
    public List<String> jvmOptions() {
        return List.of("-Xmx256m");
    }

    @Override
    public void run(Extent extent, Report report) throws Exception {
        int rows = Math.max(20_000, extent.of(1_000_000));
        try (Server database = Server.start()) {
            OrderTable.create(database, rows);
            database.execute("alter table orders add primary key (id)");
            ConnectionPool pool = Server.pool(database.configuration().forceBinary(true), CONNECTIONS);
            try (NdjsonServer server = server(pool)) {
                contest(extent, report, server, rows);
            } finally {
                pool.disposeLater().block(Server.LONG);
            }
        }
        report.note("MB in use: of the heap of server and client, without Netty's buffers outside it");
    }

    private static Map<String, String> sides() {
        Map<String, String> paths = new LinkedHashMap<>();
        paths.put("WebFlux + Jackson over DatabaseClient", "client");
        paths.put("WebFlux + Jackson in a scope", "scope");
        paths.put("JsonLines", "rows");
        paths.put("JsonLines by key", "key");
        paths.put("rendered by the server, a value for two blocks", "blocks");
        paths.put("the same with " + CONNECTIONS + " connections", "several");
        return paths;
    }

    private static NdjsonServer server(ConnectionPool pool) {
        ConnectionScopes scopes = ConnectionScopes.of(pool);
        ConnectionScopes reads =
                scopes.transactions(TransactionOptions.defaults().withReadOnly(true));
        DatabaseClient plain = DatabaseClient.create(pool);
        DatabaseClient scoped = DatabaseClient.create(scopes.connectionFactory());
        RenderedOrders rendered = new RenderedOrders(scopes);
        return new NdjsonServer()
                .records("client", rows -> NdjsonServer.orders(plain, rows, 0))
                .records(
                        "scope",
                        rows -> NdjsonServer.orders(scoped, rows, RenderedOrders.FETCH_SIZE)
                                .as(reads::transactional))
                .lines("rows", rendered::byRows)
                .lines("key", rendered::byKey)
                .lines("blocks", rendered::byBlocks)
                .lines("several", rows -> rendered.byBlocks(rows, CONNECTIONS))
                .start();
    }

    private static void contest(Extent extent, Report report, NdjsonServer server, int rows) throws Exception {
        String group = String.format(Locale.ROOT, "%,d rows", rows);
        Contest speed = new Contest(report, group, "rows/s");
        Contest memory = new Contest(report, group, "MB in use");
        sides().forEach((side, path) -> {
            speed.add(side, System::gc, Contest.perSecond(() -> {
                LineCheck lines = new LineCheck(rows, null);
                get(server, path, rows, lines);
                return lines.lines(side);
            }));
            memory.add(side, () -> {
                HeapInUse heap = new HeapInUse();
                LineCheck lines = new LineCheck(rows, heap);
                get(server, path, rows, lines);
                lines.lines(side);
                return heap.megabytes();
            });
        });
        speed.run(extent.rounds());
        memory.run(1);
    }

    private static void get(NdjsonServer server, String path, int rows, LineCheck lines) {
        HttpClient.create()
                .host("127.0.0.1")
                .port(server.port())
                .get()
                .uri('/' + path + '/' + rows)
                .response((response, body) -> response.status().code() == 200
                        ? body.doOnNext(lines::add).then()
                        : Flux.<Void>error(new IllegalStateException(path + ": " + response.status())))
                .blockLast(Server.LONG);
    }
}
