package dev.r2dbcscope.benchmarks;

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;

/** Pools of JDBC connections. */
final class Jdbc {

    private Jdbc() {}

    static HikariDataSource pool(int port, int size, boolean autoCommit) {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl(Server.jdbcUrl(port));
        config.setMaximumPoolSize(size);
        config.setAutoCommit(autoCommit);
        return new HikariDataSource(config);
    }
}
