package dev.r2dbcscope.benchmarks;

import static org.springframework.web.reactive.function.server.RequestPredicates.GET;

import io.r2dbc.spi.Statement;
import java.nio.ByteBuffer;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.IntFunction;
import org.springframework.core.io.buffer.DataBuffer;
import org.springframework.core.io.buffer.DefaultDataBufferFactory;
import org.springframework.http.MediaType;
import org.springframework.http.server.reactive.ReactorHttpHandlerAdapter;
import org.springframework.r2dbc.core.DatabaseClient;
import org.springframework.web.reactive.function.BodyInserters;
import org.springframework.web.reactive.function.server.RouterFunction;
import org.springframework.web.reactive.function.server.RouterFunctions;
import org.springframework.web.reactive.function.server.ServerRequest;
import org.springframework.web.reactive.function.server.ServerResponse;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.netty.DisposableServer;
import reactor.netty.http.server.HttpServer;

/** An HTTP server that exports orders as NDJSON, one path for each way to do it, by Spring WebFlux on Reactor Netty. */
final class NdjsonServer implements AutoCloseable {

    private final Map<String, RouterFunction<ServerResponse>> routes = new LinkedHashMap<>();
    private DisposableServer server;

    /** Records, which WebFlux has rendered by Jackson. */
    NdjsonServer records(String path, IntFunction<Flux<Order>> orders) {
        return add(
                path,
                rows -> ServerResponse.ok()
                        .contentType(MediaType.APPLICATION_NDJSON)
                        .body(orders.apply(rows), Order.class));
    }

    /** Lines that are rendered already, written as they are. */
    NdjsonServer lines(String path, IntFunction<Flux<ByteBuffer>> lines) {
        return add(
                path,
                rows -> ServerResponse.ok()
                        .contentType(MediaType.APPLICATION_NDJSON)
                        .body(BodyInserters.fromDataBuffers(lines.apply(rows).map(NdjsonServer::dataBuffer))));
    }

    private static DataBuffer dataBuffer(ByteBuffer bytes) {
        return DefaultDataBufferFactory.sharedInstance.wrap(bytes);
    }

    private NdjsonServer add(String path, IntFunction<Mono<ServerResponse>> response) {
        routes.put(path, RouterFunctions.route(GET('/' + path + "/{rows}"), request -> response.apply(rows(request))));
        return this;
    }

    private static int rows(ServerRequest request) {
        return Integer.parseInt(request.pathVariable("rows"));
    }

    NdjsonServer start() {
        RouterFunction<ServerResponse> all =
                routes.values().stream().reduce(RouterFunction::and).orElseThrow();
        server = HttpServer.create()
                .host("127.0.0.1")
                .port(0)
                .handle(new ReactorHttpHandlerAdapter(RouterFunctions.toHttpHandler(all)))
                .bindNow();
        return this;
    }

    int port() {
        return server.port();
    }

    /** As an application without a scope reads it. */
    static Flux<Order> orders(DatabaseClient client, int rows, int fetchSize) {
        return client.sql(OrderTable.SELECT)
                .filter((Statement statement) -> statement.fetchSize(fetchSize))
                .bind(0, (long) rows)
                .map(Order::of)
                .all();
    }

    @Override
    public void close() {
        server.disposeNow();
    }
}
