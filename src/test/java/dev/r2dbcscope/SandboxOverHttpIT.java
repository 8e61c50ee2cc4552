package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.springframework.web.reactive.function.server.RouterFunctions.route;

import dev.r2dbcscope.testkit.RollbackSandboxExtension;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.springframework.http.server.reactive.ReactorHttpHandlerAdapter;
import org.springframework.r2dbc.connection.R2dbcTransactionManager;
import org.springframework.r2dbc.core.DatabaseClient;
import org.springframework.test.web.reactive.server.WebTestClient;
import org.springframework.transaction.reactive.TransactionalOperator;
import org.springframework.web.reactive.function.client.WebClient;
import org.springframework.web.reactive.function.server.RouterFunction;
import org.springframework.web.reactive.function.server.RouterFunctions;
import org.springframework.web.reactive.function.server.ServerRequest;
import org.springframework.web.reactive.function.server.ServerResponse;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.netty.DisposableServer;
import reactor.netty.http.server.HttpServer;

/** A rollback sandbox under an application that is called over HTTP, where no Reactor Context crosses. */
class SandboxOverHttpIT {

    private static final Duration BOUND = Duration.ofMinutes(2);

    private static final int REQUESTS = 200;

    private static final WatchedPool REAL = WatchedPool.of(1);

    @RegisterExtension
    static final RollbackSandboxExtension DATABASE = RollbackSandboxExtension.of(REAL.pool);

    private static DisposableServer server;

    private final WebTestClient client = WebTestClient.bindToServer()
            .baseUrl("http://localhost:" + server.port())
            .responseTimeout(BOUND)
            .build();

    @BeforeAll
    static void start() {
        Postgres.execute("drop table if exists visits; create table visits (id serial primary key, n int unique)");
        server = HttpServer.create()
                .port(0)
                .handle(new ReactorHttpHandlerAdapter(
                        RouterFunctions.toHttpHandler(new Application(DATABASE.connectionFactory()).routes())))
                .bindNow(BOUND);
    }

    @AfterAll
    static void stop() {
        server.disposeNow(BOUND);
        REAL.assertWhole();
        REAL.close();
        Postgres.execute("drop table visits");
    }

    @BeforeEach
    void fixture() {
        DatabaseClient.create(DATABASE.connectionFactory())
                .sql("insert into visits (n) values (-1)")
                .then()
                .block(BOUND);
    }

    @AfterEach
    void nothingIsInTheDatabase() {
        assertThat(Postgres.number("select count(*) from visits")).isZero();
    }

    /** What is under test: with Spring's transactions, with scopes, and with none. */
    private static final class Application {

        private final DatabaseClient client;
        private final TransactionalOperator spring;
        private final ConnectionScopes scopes;

        Application(ConnectionFactory database) {
            client = DatabaseClient.create(database);
            spring = TransactionalOperator.create(new R2dbcTransactionManager(database));
            scopes = ConnectionScopes.of(database);
        }

        RouterFunction<ServerResponse> routes() {
            return route().POST("/spring/{n}", request -> answer(add(n(request)).as(spring::transactional)))
                    .POST("/scope/{n}", request -> answer(scopes.inTransaction(c -> add(c, n(request)))))
                    .POST("/plain/{n}", request -> answer(add(n(request))))
                    .POST(
                            "/slow/{n}",
                            request -> answer(scopes.inTransaction(c -> add(c, n(request))
                                    .flatMap(n -> Rows.ints(c, "select 1 from pg_sleep(600)")
                                            .then(Mono.just(n))))))
                    .GET("/count", request -> ServerResponse.ok().body(count().map(String::valueOf), String.class))
                    .GET(
                            "/all",
                            request ->
                                    ServerResponse.ok().body(all().collectList().map(List::toString), String.class))
                    .onError(
                            IllegalArgumentException.class,
                            (e, request) -> ServerResponse.badRequest().build())
                    .onError(
                            org.springframework.dao.DataIntegrityViolationException.class,
                            (e, request) -> ServerResponse.status(409).build())
                    .build();
        }

        private static int n(ServerRequest request) {
            return Integer.parseInt(request.pathVariable("n"));
        }

        private static Mono<ServerResponse> answer(Mono<Integer> work) {
            return work.flatMap(n -> ServerResponse.ok().bodyValue("" + n));
        }

        /** Every tenth fails after it wrote. */
        private static Mono<Integer> checked(int n) {
            return n % 10 == 9 ? Mono.error(() -> new IllegalArgumentException("not " + n)) : Mono.just(n);
        }

        private Mono<Integer> add(int n) {
            return client.sql("insert into visits (n) values (:n)")
                    .bind("n", n)
                    .then()
                    .then(Mono.defer(() -> checked(n)));
        }

        private Mono<Integer> add(Connection connection, int n) {
            return Rows.update(connection
                            .createStatement("insert into visits (n) values ($1)")
                            .bind(0, n))
                    .then(Mono.defer(() -> checked(n)));
        }

        private Mono<Long> count() {
            return client.sql("select count(*) from visits where n >= 0")
                    .map(row -> row.get(0, Long.class))
                    .one();
        }

        private Flux<Integer> all() {
            return client.sql("select n from visits where n >= 0 order by n")
                    .map(row -> row.get(0, Integer.class))
                    .all();
        }
    }

    private String get(String path) {
        String body = client.get()
                .uri(path)
                .exchange()
                .expectStatus()
                .isOk()
                .expectBody(String.class)
                .returnResult()
                .getResponseBody();
        return body == null ? "" : body;
    }

    private long count() {
        return Long.parseLong(get("/count"));
    }

    private static WebClient web() {
        return WebClient.create("http://localhost:" + server.port());
    }

    private static Mono<Integer> post(String path) {
        return web().post()
                .uri(path)
                .exchangeToMono(response -> Mono.just(response.statusCode().value()));
    }

    @Test
    void aRequestIsSeenByTheNextOneAndByTheTest() {
        client.post().uri("/spring/1").exchange().expectStatus().isOk();
        client.post().uri("/scope/2").exchange().expectStatus().isOk();
        client.post().uri("/spring/9").exchange().expectStatus().isBadRequest();
        client.post().uri("/scope/19").exchange().expectStatus().isBadRequest();
        client.post().uri("/spring/1").exchange().expectStatus().isEqualTo(409);

        assertThat(count()).isEqualTo(2);
        assertThat(DatabaseClient.create(DATABASE.connectionFactory())
                        .sql("select count(*) from visits")
                        .map(row -> row.get(0, Long.class))
                        .one()
                        .block(BOUND))
                .isEqualTo(3);
    }

    @Test
    void manyRequestsAtOnceTakeTurns() {
        List<String> kinds = List.of("spring", "scope");
        List<Integer> statuses = Flux.range(0, REQUESTS)
                .flatMap(n -> post("/" + kinds.get(n % 2) + "/" + n), REQUESTS)
                .collectList()
                .blockOptional(BOUND)
                .orElseThrow();

        assertThat(statuses).hasSize(REQUESTS).containsOnly(200, 400);
        assertThat(statuses.stream().filter(status -> status == 400)).hasSize(REQUESTS / 10);
        assertThat(count()).isEqualTo(REQUESTS - REQUESTS / 10);
    }

    @Test
    void manyRequestsWithoutTransactionsTakeTurns() {
        List<Integer> statuses = Flux.range(0, REQUESTS)
                .flatMap(n -> post("/plain/" + n), REQUESTS)
                .collectList()
                .blockOptional(BOUND)
                .orElseThrow();

        assertThat(statuses).hasSize(REQUESTS);
        assertThat(count()).as("those that failed had written").isEqualTo(REQUESTS);
    }

    @Test
    void requestsWhoseClientsLeaveAreRolledBack() {
        List<String> kinds = List.of("slow", "slowly");
        Flux.range(0, 8)
                .flatMap(
                        n -> post("/" + kinds.get(n % 2) + "/" + n)
                                .timeout(Duration.ofMillis(200 + 100 * n), Mono.empty()),
                        8)
                .then()
                .block(BOUND);
        client.post().uri("/scope/100").exchange().expectStatus().isOk();

        assertThat(get("/all")).isEqualTo("[100]");
    }
}
