package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.ConnectionFactory;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Nested;

/** The R2DBC TCK on the scope-aware factory over H2, whose driver has no scheduler of its own. */
class H2ConnectionFactoryTckTest {

    private final ConnectionScopes scopes = ConnectionScopes.of(H2Tck.plainFactory());

    @AfterEach
    void nothingIsHeld() {
        assertThat(scopes.live()).isEmpty();
    }

    @Nested
    class OnThePlainFactory extends H2Tck {
        @Override
        public ConnectionFactory getConnectionFactory() {
            return H2Tck.plainFactory();
        }
    }

    @Nested
    class OutsideAScope extends H2Tck {
        @Override
        public ConnectionFactory getConnectionFactory() {
            return scopes.connectionFactory();
        }
    }

    @Nested
    class InsideAScope extends H2Tck implements TckInsideAScope {
        private final OpenScope scope = OpenScope.connected(scopes);

        @Override
        public OpenScope scope() {
            return scope;
        }
    }

    @Nested
    class InsideATransaction extends H2Tck implements TckInsideATransaction {
        private final OpenScope scope = OpenScope.transactional(scopes);

        @Override
        public OpenScope scope() {
            return scope;
        }
    }
}
