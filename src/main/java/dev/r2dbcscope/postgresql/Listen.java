package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.ScopeAcquisitionException;
import dev.r2dbcscope.ScopesDrainedException;
import dev.r2dbcscope.postgresql.Notification.MayHaveMissed;
import dev.r2dbcscope.postgresql.Notification.MayHaveMissed.Reason;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import io.r2dbc.spi.R2dbcTransientException;
import java.io.IOException;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;
import reactor.core.Exceptions;
import reactor.core.publisher.BufferOverflowStrategy;
import reactor.core.publisher.Flux;
import reactor.util.retry.Retry;

/** One subscription to notifications: one connection after the other, and the buffer between them and the subscriber. */
final class Listen {

    /** Connection lost, too many connections, shutting down or starting up, an error of the server's machine. */
    private static final Set<String> PASSING_CLASSES = Set.of("08", "53", "57", "58");

    private final ListenOptions options;
    private volatile boolean heard;
    private long expected;
    private volatile @Nullable Throwable cause;

    Listen(ListenOptions options) {
        this.options = options;
    }

    Flux<Notification> to(Flux<Notification> connected) {
        Flux<Notification> all = connected
                .map(this::afterTheFirst)
                .retryWhen(Retry.backoff(options.attempts(), options.firstPause())
                        .maxBackoff(options.longestPause())
                        .transientErrors(true)
                        .filter(Listen::mayPass)
                        .doBeforeRetry(signal -> cause = signal.failure())
                        .onRetryExhaustedThrow((spec, signal) -> signal.failure()))
                .onErrorResume(ScopesDrainedException.class, e -> heard ? Flux.empty() : Flux.error(e));
        return options.failOnOverflow() ? failing(all) : dropping(all);
    }

    private Notification afterTheFirst(Notification notification) {
        if (!(notification instanceof Notification.Listening)) {
            return notification;
        }
        boolean first = !heard;
        heard = true;
        return first ? notification : new MayHaveMissed(Reason.RECONNECTED, cause);
    }

    /** They are numbered before the buffer, so that a gap is found behind it, just where it is. */
    private Flux<Notification> dropping(Flux<Notification> all) {
        return all.index()
                .onBackpressureBuffer(options.buffer(), lost -> {}, BufferOverflowStrategy.DROP_OLDEST)
                .concatMapIterable(next -> withGap(next.getT1(), next.getT2()), 1);
    }

    private List<Notification> withGap(long number, Notification notification) {
        boolean gap = number != expected;
        expected = number + 1;
        return gap ? List.of(new MayHaveMissed(Reason.OVERFLOW, null), notification) : List.of(notification);
    }

    private Flux<Notification> failing(Flux<Notification> all) {
        return all.onBackpressureBuffer(options.buffer(), BufferOverflowStrategy.ERROR)
                .onErrorMap(
                        Exceptions::isOverflow,
                        e -> Exceptions.failWithOverflow("More than " + options.buffer() + " notifications waited for"
                                + " their subscriber; let it ask for more, or raise Notifications.withBuffer"));
    }

    private static boolean mayPass(Throwable error) {
        return error instanceof R2dbcTransientException
                || error instanceof R2dbcNonTransientResourceException lost && !isFinal(lost)
                || error instanceof ScopeAcquisitionException
                || error instanceof IOException
                || error instanceof R2dbcException told && isPassing(told.getSqlState());
    }

    private static boolean isPassing(@Nullable String sqlState) {
        return sqlState != null && sqlState.length() == 5 && PASSING_CLASSES.contains(sqlState.substring(0, 2));
    }

    /** The driver has this type for all that it does not know better, such as a database that does not exist. */
    private static boolean isFinal(R2dbcNonTransientResourceException error) {
        return error.getSqlState() != null && !isPassing(error.getSqlState());
    }
}
