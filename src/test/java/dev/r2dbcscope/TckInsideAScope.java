package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ValidationDepth;
import io.r2dbc.spi.test.TestKit;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;

/**
 * The R2DBC TCK on the connection of a scope that stays open for the length of a test.
 *
 * <p>One test cannot apply: after {@code close()} the kit wants a connection to be invalid, but inside a scope closing is
 * left to the scope.
 */
interface TckInsideAScope extends TestKit<String> {

    Duration BOUND = Duration.ofSeconds(60);

    OpenScope scope();

    @Override
    default ConnectionFactory getConnectionFactory() {
        return scope();
    }

    /** A connection in a transaction would keep the tables locked, so the scope ends first. */
    @Override
    @AfterEach
    default void dropTable() {
        scope().complete();
        TestKit.super.dropTable();
    }

    @Override
    @Test
    default void validate() {
        Connection connection = scope().create().block(BOUND);
        assertThat(connection).isNotNull();
        List<Boolean> answers = Flux.concat(
                        connection.validate(ValidationDepth.LOCAL),
                        connection.validate(ValidationDepth.REMOTE),
                        Flux.from(connection.close()).cast(Boolean.class),
                        connection.validate(ValidationDepth.LOCAL),
                        connection.validate(ValidationDepth.REMOTE))
                .collectList()
                .block(BOUND);
        assertThat(answers).as("closing is left to the scope").containsExactly(true, true, true, true);

        scope().complete();
        answers = Flux.concat(connection.validate(ValidationDepth.LOCAL), connection.validate(ValidationDepth.REMOTE))
                .collectList()
                .block(BOUND);
        assertThat(answers).as("after the scope").containsExactly(false, false);
    }
}
