package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.ScopeOptions;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.function.Consumer;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import reactor.core.publisher.Flux;

/**
 * Listens to what {@code NOTIFY} tells: {@code LISTEN} as a {@code Flux}.
 *
 * <pre>{@code
 * Flux<Notification> changes = Notifications.of(scopes).listen("prices").share();
 * Flux<Price> prices = changes.concatMap(change -> change instanceof Notification.Received one
 *         ? reload(one.payload())
 *         : reloadAll());
 * }</pre>
 *
 * <p><em>Lifetime:</em> each subscription holds a connection of its own, never that of a scope around it, from its first
 * {@code LISTEN} on until it ends: one per subscription, so {@code share()} what several subscribe to, and let the pool have
 * one more for each. It is a scope named {@code "LISTEN ..."} with the options of the given scopes, except for their time
 * limits and their leak threshold. The connection is destroyed at the end instead of returned, because what it was still to
 * be told would be the next borrower's.
 *
 * <p><em>Connection lost:</em> another one is opened, with a growing pause between attempts ({@link #withReconnect}), and
 * {@link Notification.MayHaveMissed} tells that something may have been missed meanwhile. A first connection that cannot be
 * opened is tried again in the same way. That the server cannot be reached any more is found out by a statement that is sent
 * regularly ({@link #withHeartbeat}).
 *
 * <p><em>Demand:</em> notifications are delivered as they are asked for, and wait in a bounded buffer ({@link #withBuffer})
 * until then. When it is full, the oldest ones are dropped, which {@link Notification.MayHaveMissed} tells, or the
 * subscription fails ({@link #withFailOnOverflow}).
 *
 * <p><em>Endings:</em> completes when the scopes are drained ({@link ConnectionScopes#drain}). Fails with the error that ended
 * the last connection when there are no more attempts; at once with errors that another attempt would not mend, such as a
 * refused password, a pool that was closed, or {@link dev.r2dbcscope.TransactionPoolingException} under {@code
 * ScopeOptions.withTransactionPooling}. When the subscriber cancels, the connection is closed.
 *
 * <p><em>Threads:</em> notifications are emitted on the connection's thread, which must not be blocked.
 *
 * <p>Immutable and thread-safe: every {@code with} method returns a copy.
 */
public final class Notifications {

    private static final int LONGEST_NAME = 63;

    private final ConnectionScopes scopes;
    private final ListenOptions options;

    private Notifications(ConnectionScopes scopes, ListenOptions options) {
        this.scopes = scopes;
        this.options = options;
    }

    /**
     * Listens with connections of the given scopes: a buffer of 10,000 notifications that drops the oldest ones, attempts to
     * reconnect for ever after 100 milliseconds to 30 seconds, and a heartbeat every 30 seconds.
     *
     * @param scopes open the connections
     * @return notifications of the database that they are of
     */
    public static Notifications of(ConnectionScopes scopes) {
        return new Notifications(Objects.requireNonNull(scopes, "scopes"), ListenOptions.DEFAULTS);
    }

    /**
     * Bounds the notifications that wait for demand.
     *
     * @param notifications how many, positive; 10,000 by default
     * @return a copy with that buffer
     * @throws IllegalArgumentException if it is not positive
     */
    public Notifications withBuffer(int notifications) {
        if (notifications <= 0) {
            throw new IllegalArgumentException("notifications must be positive: " + notifications);
        }
        return with(draft -> draft.buffer = notifications);
    }

    /**
     * Says what happens when the buffer is full: the subscription fails with an error that {@code
     * reactor.core.Exceptions.isOverflow} recognises, or the oldest notifications are dropped.
     *
     * @param fail whether it fails; {@code false} by default
     * @return a copy that does or does not
     */
    public Notifications withFailOnOverflow(boolean fail) {
        return with(draft -> draft.failOnOverflow = fail);
    }

    /**
     * Bounds the attempts to get another connection, which are made after pauses that double each time, and vary by half, until
     * one succeeds.
     *
     * @param attempts how many are made in a row before the subscription fails; zero for none at all; {@code Long.MAX_VALUE},
     *     which is for ever, by default
     * @param first the pause before the first attempt, positive; 100 milliseconds by default
     * @param longest the longest pause, not shorter than the first; 30 seconds by default
     * @return a copy with those bounds
     * @throws IllegalArgumentException if one is out of its range
     */
    public Notifications withReconnect(long attempts, Duration first, Duration longest) {
        if (attempts < 0) {
            throw new IllegalArgumentException("attempts must not be negative: " + attempts);
        }
        if (Objects.requireNonNull(first, "first").isNegative() || first.isZero()) {
            throw new IllegalArgumentException("first must be positive: " + first);
        }
        if (Objects.requireNonNull(longest, "longest").compareTo(first) < 0) {
            throw new IllegalArgumentException("longest must not be shorter than first: " + longest);
        }
        return with(draft -> {
            draft.attempts = attempts;
            draft.firstPause = first;
            draft.longestPause = longest;
        });
    }

    /**
     * Sets after how long without one a statement is sent to find out whether the server can still be reached. If it is not
     * answered for as long, the connection counts as lost.
     *
     * @param interval the interval; zero for none, with which a connection that breaks without a word is never noticed; 30
     *     seconds by default
     * @return a copy with that interval
     * @throws IllegalArgumentException if it is negative
     */
    public Notifications withHeartbeat(Duration interval) {
        if (Objects.requireNonNull(interval, "interval").isNegative()) {
            throw new IllegalArgumentException("interval must not be negative: " + interval);
        }
        return with(draft -> draft.heartbeat = interval);
    }

    private Notifications with(Consumer<ListenOptions.Draft> change) {
        return new Notifications(scopes, options.with(change));
    }

    /**
     * Listens to channels.
     *
     * @param channel the name of a channel, exactly as the database knows it, without quotes: {@code NOTIFY Prices} without
     *     quotes notifies {@code "prices"}
     * @param more further channels, on the same connection
     * @return what is notified, and when something may have been missed; a connection for each subscription
     * @throws IllegalArgumentException if a name is empty or longer than the 63 bytes that the server tells apart
     */
    public Flux<Notification> listen(String channel, String... more) {
        List<String> channels =
                Stream.concat(Stream.of(channel), Stream.of(more)).distinct().toList();
        channels.forEach(Notifications::requireName);
        ListenConnection connection = new ListenConnection(scopes, options, channels);
        return scopes.with(options(channels))
                .withOwnConnectionMany(connection::notifications)
                .transform(connected -> Flux.defer(() -> new Listen(options).to(connected)));
    }

    /**
     * Listens to channels, and leaves out whether something may have been missed.
     *
     * @param channel the name of a channel, as for {@link #listen}
     * @param more further channels
     * @return the payloads of what is notified
     * @throws IllegalArgumentException as {@link #listen}
     * @see #listen to hear of what may have been missed, which is all that one can rely on
     */
    public Flux<String> payloads(String channel, String... more) {
        return listen(channel, more).ofType(Notification.Received.class).map(Notification.Received::payload);
    }

    /** It is idle for as long as nobody notifies, which is no reason to end it. */
    private ScopeOptions options(List<String> channels) {
        return scopes.options()
                .withName(channels.stream().collect(Collectors.joining(", ", "LISTEN ", "")))
                .withMaxHold(Duration.ZERO)
                .withMaxIdle(Duration.ZERO)
                .withLeakThreshold(Duration.ZERO)
                .withStatementTimeout(Duration.ZERO)
                .withLockWaitTimeout(Duration.ZERO);
    }

    private static void requireName(String channel) {
        Objects.requireNonNull(channel, "channel");
        if (channel.isEmpty()
                || channel.indexOf('\0') >= 0
                || channel.getBytes(StandardCharsets.UTF_8).length > LONGEST_NAME) {
            throw new IllegalArgumentException(
                    "channel must have 1 to " + LONGEST_NAME + " bytes: \"" + channel + "\"");
        }
    }

    @Override
    public String toString() {
        return "Notifications[" + scopes + ", " + options + "]";
    }
}
