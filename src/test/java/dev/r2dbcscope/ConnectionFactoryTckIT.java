package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.ConnectionFactory;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Nested;

/** The R2DBC TCK on the scope-aware factory over PostgreSQL. */
class ConnectionFactoryTckIT {

    private final ConnectionScopes scopes = ConnectionScopes.of(Postgres.connectionFactory());

    @AfterEach
    void nothingIsHeld() {
        assertThat(scopes.live()).isEmpty();
    }

    @Nested
    class OnThePlainFactory extends PostgresTck {
        @Override
        public ConnectionFactory getConnectionFactory() {
            return Postgres.connectionFactory();
        }
    }

    @Nested
    class OutsideAScope extends PostgresTck {
        @Override
        public ConnectionFactory getConnectionFactory() {
            return scopes.connectionFactory();
        }
    }

    @Nested
    class InsideAScope extends PostgresTck implements TckInsideAScope {
        private final OpenScope scope = OpenScope.connected(scopes);

        @Override
        public OpenScope scope() {
            return scope;
        }
    }

    @Nested
    class InsideATransaction extends PostgresTck implements TckInsideATransaction {
        private final OpenScope scope = OpenScope.transactional(scopes);

        @Override
        public OpenScope scope() {
            return scope;
        }
    }
}
