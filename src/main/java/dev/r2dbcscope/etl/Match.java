package dev.r2dbcscope.etl;

import org.jspecify.annotations.Nullable;

/**
 * A row, and what a {@link Lookup} has found for it.
 *
 * @param row the row
 * @param found what was found, or {@code null} if there is nothing under its key, or it has none
 * @param <T> the type of the row
 * @param <V> the type of what is looked up
 */
public record Match<T, V>(T row, @Nullable V found) {}
