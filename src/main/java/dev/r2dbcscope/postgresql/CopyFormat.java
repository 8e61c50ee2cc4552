package dev.r2dbcscope.postgresql;

/**
 * How {@code COPY} sends values.
 *
 * @see CopyIn#withFormat(CopyFormat)
 */
public enum CopyFormat {

    /**
     * As the server stores them. The fastest, and without any rounding; what is written must be of the type of its column
     * exactly, because the server does not convert it.
     */
    BINARY,

    /**
     * As text, which the server parses by the type of the column: for columns whose type {@link CopyType} does not know, or
     * whose type may differ from what is written.
     */
    TEXT
}
