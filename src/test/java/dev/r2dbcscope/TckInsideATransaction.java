package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import java.util.List;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * The R2DBC TCK on the connection of a transactional scope that stays open for the length of a test.
 *
 * <p>Four more tests cannot apply, because the transaction is the scope's: the kit wants a connection that is in
 * auto-commit mode, a switch to auto-commit that commits, and (twice) a rollback whose effect can be seen on the same
 * connection afterwards.
 */
interface TckInsideATransaction extends TckInsideAScope {

    @Override
    @Test
    default void autoCommitByDefault() {
        assertThat(within(connection -> Mono.just(connection.isAutoCommit())))
                .as("a transaction is open")
                .containsExactly(false);
    }

    @Override
    @Test
    default void changeAutoCommitCommitsTransaction() {
        List<Object> seen = within(connection -> Flux.from(connection.setAutoCommit(false))
                .thenMany(connection.beginTransaction())
                .thenMany(insert200(connection))
                .thenMany(connection.setAutoCommit(true))
                .cast(Object.class)
                .onErrorResume(Mono::just)
                .concatWith(Mono.fromCallable(connection::isAutoCommit)));

        assertThat(seen).as("only the scope commits").hasSize(2).last().isEqualTo(false);
        assertThat(seen.get(0)).isInstanceOf(IllegalStateException.class);
        assertThat(durableRows()).isEmpty();
        scope().complete();
        assertThat(durableRows()).containsExactly(200);
    }

    @Override
    @Test
    default void sameAutoCommitLeavesTransactionUnchanged() {
        List<Object> seen = within(connection -> Flux.from(connection.setAutoCommit(false))
                .thenMany(connection.beginTransaction())
                .thenMany(insert200(connection))
                .thenMany(connection.setAutoCommit(false))
                .thenMany(Mono.fromCallable(connection::isAutoCommit)));

        assertThat(seen).containsExactly(false);
        assertThat(durableRows()).isEmpty();
        scope().complete();
        assertThat(durableRows()).containsExactly(200);
    }

    @Override
    @Test
    default void transactionRollback() {
        within(connection -> Flux.from(connection.beginTransaction())
                .thenMany(insert200(connection))
                .thenMany(connection.rollbackTransaction())
                .cast(Object.class));

        assertThat(scope().completeWithError())
                .as("the rollback is done at the end of the scope, which says so")
                .isInstanceOf(ScopeRolledBackException.class);
        assertThat(durableRows()).isEmpty();
    }

    private List<Object> within(
            java.util.function.Function<Connection, ? extends org.reactivestreams.Publisher<?>> use) {
        List<Object> seen = Flux.usingWhen(
                        getConnectionFactory().create(),
                        connection -> Flux.from(use.apply(connection)).cast(Object.class),
                        Connection::close)
                .collectList()
                .block(BOUND);
        assertThat(seen).isNotNull();
        return seen;
    }

    private Flux<Long> insert200(Connection connection) {
        return Flux.from(connection
                        .createStatement(expand(TestStatement.INSERT_VALUE200))
                        .execute())
                .flatMap(Result::getRowsUpdated);
    }

    /** What another connection can see. */
    private List<Integer> durableRows() {
        return getJdbcOperations().queryForList(expand(TestStatement.SELECT_VALUE), Integer.class);
    }
}
