package dev.r2dbcscope;

import dev.r2dbcscope.testkit.RollbackSandbox;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.spi.ConnectionFactory;
import java.time.Duration;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;

/** The R2DBC TCK on a rollback sandbox, which is rolled back after each test: its tables would stay locked otherwise. */
class SandboxTckIT extends PostgresTck {

    private static final Duration BOUND = Duration.ofSeconds(60);

    private final ConnectionPool pool = Postgres.pool(1);
    private final RollbackSandbox sandbox = RollbackSandbox.of(pool);

    @Override
    public ConnectionFactory getConnectionFactory() {
        return sandbox;
    }

    @Override
    @BeforeEach
    public void createTable() {
        super.createTable();
        sandbox.begin().block(BOUND);
    }

    @Override
    @AfterEach
    public void dropTable() {
        sandbox.rollback().block(BOUND);
        pool.disposeLater().block(BOUND);
        super.dropTable();
    }
}
