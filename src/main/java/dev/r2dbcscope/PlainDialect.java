package dev.r2dbcscope;

import io.r2dbc.spi.Connection;

/** What the R2DBC SPI alone can do. */
enum PlainDialect implements Dialect {
    INSTANCE;

    @Override
    public boolean supports(Connection connection) {
        return true;
    }
}
