/** What PostgreSQL can do beyond the R2DBC SPI. Needs {@code org.postgresql:r2dbc-postgresql} on the class path. */
@NullMarked
package dev.r2dbcscope.postgresql;

import org.jspecify.annotations.NullMarked;
