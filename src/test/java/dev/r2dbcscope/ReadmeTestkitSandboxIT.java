package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.RollbackSandboxExtension;
import io.r2dbc.pool.ConnectionPool;
import java.time.Duration;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.MethodOrderer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestMethodOrder;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Mono;

/** The README's example of the rollback sandbox. */
@TestMethodOrder(MethodOrderer.MethodName.class)
class ReadmeTestkitSandboxIT {

    private static final ConnectionPool pool = Postgres.pool(1);

    // example: sandbox
    @RegisterExtension
    static final RollbackSandboxExtension database = RollbackSandboxExtension.of(pool);

    private final Shop shop = new Shop(ConnectionScopes.of(database.connectionFactory()));

    @BeforeEach
    void stock() {
        shop.add("book").block(); // part of the test: rolled back with it
    }

    @Test
    void sellsWhatItHas() {
        shop.sell("book").block(); // a transaction of its own: a savepoint

        assertThat(shop.articles().block()).isZero();
    }

    @Test
    void startsWithOneArticle() {
        assertThat(shop.articles().block()).isEqualTo(1);
    }
    // end

    @BeforeAll
    static void table() {
        Postgres.execute("drop table if exists articles; create table articles (name text)");
    }

    @AfterAll
    static void nothingStays() {
        assertThat(Postgres.number("select count(*) from articles")).isZero();
        pool.disposeLater().block(Duration.ofSeconds(60));
        Postgres.execute("drop table articles");
    }

    private record Shop(ConnectionScopes scopes) {

        Mono<Void> add(String article) {
            return change("insert into articles values ($1)", article);
        }

        Mono<Void> sell(String article) {
            return change("delete from articles where name = $1", article);
        }

        private Mono<Void> change(String sql, String article) {
            return scopes.inTransaction(
                    c -> Rows.update(c.createStatement(sql).bind(0, article)).then());
        }

        Mono<Integer> articles() {
            return scopes.withConnection(c -> Rows.ints(c, "select count(*)::int from articles"));
        }
    }
}
