package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import java.time.Duration;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Mono;

/** What a database is taken for of which nothing is known but the R2DBC SPI. */
class DialectTest {

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final Dialect plain = PlainDialect.INSTANCE;

    @Test
    void isThePlainOneForAConnectionThatNoOtherKnows() {
        Connection connection = database.newConnection();
        assertThat(Dialect.of(connection)).isSameAs(plain);
        assertThat(plain.supports(connection)).isTrue();
        Mono.from(connection.close()).block(FormContract.PATIENCE);
    }

    @Test
    void takesAllStatementsForWorkWithData() {
        assertThat(plain.effectOf("commit")).isEqualTo(SqlEffect.DATA);
    }

    @Test
    void canDoNothingBeyondTheSpi() {
        Connection connection = database.newConnection();
        assertThat(plain.applySettings(connection, Map.of("a", "b"), true)).isNull();
        assertThat(plain.timeoutSettings(Duration.ofSeconds(1), Duration.ZERO)).isNull();
        assertThat(plain.resetTimeouts(connection)).isNull();
        assertThat(plain.makeReadOnly(connection)).isNull();
        assertThat(plain.keepsPreparedStatements(connection)).isNull();
        assertThat(plain.cancelRunning(connection)).isNull();
        assertThat(plain.afterCancelledFetch(connection)).isNull();
        assertThat(plain.cursors()).isNull();
        assertThatThrownBy(() -> plain.restoreSettings(connection, Map.of()))
                .isInstanceOf(UnsupportedOperationException.class);
        Mono.from(connection.close()).block(FormContract.PATIENCE);
    }

    @Test
    void knowsTheErrorsThatEndAConnectionByTheSqlStandard() {
        assertThat(plain.endsConnection(new R2dbcNonTransientResourceException("x", "08006")))
                .isTrue();
        assertThat(plain.endsConnection(new R2dbcNonTransientResourceException("x", "57P01")))
                .isFalse();
        assertThat(plain.endsConnection(new R2dbcNonTransientResourceException("x")))
                .isFalse();
    }
}
