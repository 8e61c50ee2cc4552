package dev.r2dbcscope;

import org.jspecify.annotations.Nullable;

/**
 * A time in which a scope holds its connection and does not use it, as seen by one look at it. Two looks that are equal saw
 * the same pause: nothing was used in between.
 *
 * @param what what stands still, by identity
 * @param progress how far it had come
 * @param sql the statement whose rows nobody asks for, or {@code null} if none is in flight
 */
record Pause(Object what, long progress, @Nullable String sql) {}
