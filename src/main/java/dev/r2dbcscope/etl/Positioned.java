package dev.r2dbcscope.etl;

import java.util.Objects;

/**
 * A row, and where in its source it is.
 *
 * @param row the row
 * @param position what a {@link Source} needs to go on behind this row
 * @param <T> the type of the row
 */
public record Positioned<T>(T row, String position) {

    /**
     * Makes one.
     *
     * @param row the row
     * @param position what a {@link Source} needs to go on behind this row
     */
    public Positioned {
        Objects.requireNonNull(row, "row");
        Objects.requireNonNull(position, "position");
    }

    /**
     * Puts another row at this position.
     *
     * @param other the other row
     * @param <R> its type
     * @return it, at this position
     */
    public <R> Positioned<R> with(R other) {
        return new Positioned<>(other, position);
    }
}
