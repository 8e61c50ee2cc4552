package dev.r2dbcscope.postgresql;

import java.time.Duration;
import java.util.function.Consumer;

/** The options of {@link Notifications}. */
record ListenOptions(
        int buffer,
        boolean failOnOverflow,
        long attempts,
        Duration firstPause,
        Duration longestPause,
        Duration heartbeat) {

    static final ListenOptions DEFAULTS = new Draft().options();

    /** The options while a copy is made; it starts as the defaults. */
    static final class Draft {

        int buffer = 10_000;
        boolean failOnOverflow;
        long attempts = Long.MAX_VALUE;
        Duration firstPause = Duration.ofMillis(100);
        Duration longestPause = Duration.ofSeconds(30);
        Duration heartbeat = Duration.ofSeconds(30);

        private ListenOptions options() {
            return new ListenOptions(buffer, failOnOverflow, attempts, firstPause, longestPause, heartbeat);
        }
    }

    ListenOptions with(Consumer<Draft> change) {
        Draft draft = new Draft();
        draft.buffer = buffer;
        draft.failOnOverflow = failOnOverflow;
        draft.attempts = attempts;
        draft.firstPause = firstPause;
        draft.longestPause = longestPause;
        draft.heartbeat = heartbeat;
        change.accept(draft);
        return draft.options();
    }
}
