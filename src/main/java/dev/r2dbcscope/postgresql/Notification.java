package dev.r2dbcscope.postgresql;

import org.jspecify.annotations.Nullable;

/** What a subscription to {@link Notifications} emits. */
public sealed interface Notification {

    /**
     * The subscription has begun: whatever is committed from now on is notified. Comes once and first, unless others were
     * dropped before it was asked for; the time to read the state that notifications are about.
     */
    record Listening() implements Notification {}

    /**
     * Somebody has notified a channel, in a transaction that has committed.
     *
     * @param channel the name of the channel
     * @param payload what was told; empty if there was none
     * @param processId the server process of whoever told it
     */
    record Received(String channel, String payload, int processId) implements Notification {

        /** Does not show the payload, which is data. */
        @Override
        public String toString() {
            return "Received[channel=" + channel + ", payload=" + payload.length() + " characters, processId="
                    + processId + "]";
        }
    }

    /**
     * Notifications may have been missed, for good, before this one: read the state that they are about again. Whatever is
     * committed from now on is notified.
     *
     * @param reason why
     * @param cause the error that ended the former connection, or {@code null} if it was not that
     */
    record MayHaveMissed(Reason reason, @Nullable Throwable cause) implements Notification {

        /** Why notifications may have been missed. */
        public enum Reason {
            /** The connection was lost, and another one has taken over. */
            RECONNECTED,
            /** The subscriber was slower than the notifications for too long, and the oldest ones were dropped. */
            OVERFLOW
        }
    }
}
