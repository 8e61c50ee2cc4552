package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.DriverTurn;
import io.r2dbc.spi.Statement;
import java.time.Duration;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/**
 * One request for an advisory lock. When nobody waits for it any more, the server is asked to stop waiting; the turn then goes
 * on until both the request to stop and the statement have been answered, so that the former cannot hit a later statement.
 */
final class LockRequest {

    private final DriverTurn turn;
    private final LockKey key;
    private final String verb;
    private final boolean waits;

    LockRequest(DriverTurn turn, LockKey key, String verb, boolean waits) {
        this.turn = turn;
        this.key = key;
        this.verb = verb;
        this.waits = waits;
    }

    /** Emits whether it was got. */
    Flux<Boolean> run() {
        return waits ? Flux.defer(this::interruptible) : answers(statement());
    }

    private Flux<Boolean> interruptible() {
        Sinks.Empty<Void> ended = Sinks.empty();
        Flux<Boolean> answer = answers(statement()).doFinally(signal -> ended.tryEmitEmpty());
        Mono<Boolean> stop = turn.left()
                .then(Mono.delay(turn.options().cancelGrace()))
                .takeUntilOther(ended.asMono())
                .flatMap(overdue -> stopWaiting());
        return Flux.mergeDelayError(1, answer, stop);
    }

    /** Whether a request without an answer has been received is not known; it could hit any later statement. */
    private Mono<Boolean> stopWaiting() {
        Duration bound = turn.options().releaseTimeout();
        return Unwrapped.postgresql(turn.connection())
                .cancelRequest()
                .timeout(bound)
                .onErrorResume(e -> Mono.fromRunnable(turn::condemn))
                .then(Mono.empty());
    }

    private Statement statement() {
        return key.call(turn.connection(), verb, "");
    }

    /** The functions that wait return {@code void}, which is a row with an empty text. */
    static Flux<Boolean> answers(Statement statement) {
        return Flux.from(statement.execute()).flatMap(result -> result.map(row -> !isFalse(row.get(0))));
    }

    private static boolean isFalse(@Nullable Object answer) {
        return Boolean.FALSE.equals(answer);
    }
}
