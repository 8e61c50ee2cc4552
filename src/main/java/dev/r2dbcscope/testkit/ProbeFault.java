package dev.r2dbcscope.testkit;

import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import java.time.Duration;
import java.util.function.Function;
import java.util.function.Supplier;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * What goes wrong with a step of a {@link ProbeConnectionFactory}: with the opening of a connection, a statement, a row, a
 * COMMIT.
 *
 * <p>Immutable; one fault can serve many steps.
 */
public final class ProbeFault {

    private static final ProbeFault NONE = new ProbeFault("none", step -> step);
    private static final ProbeFault HANG = new ProbeFault("hang", step -> Flux.never());
    private static final ProbeFault DROP = new ProbeFault("drop", step -> Flux.empty());
    private static final ProbeFault DUPLICATE = new ProbeFault("duplicate", Twice::new);

    private final String name;
    private final Function<Flux<Object>, Flux<Object>> change;
    private final boolean losesAnswer;

    private ProbeFault(String name, Function<Flux<Object>, Flux<Object>> change) {
        this(name, change, false);
    }

    private ProbeFault(String name, Function<Flux<Object>, Flux<Object>> change, boolean losesAnswer) {
        this.name = name;
        this.change = change;
        this.losesAnswer = losesAnswer;
    }

    /**
     * Nothing goes wrong.
     *
     * @return the absence of a fault
     */
    public static ProbeFault none() {
        return NONE;
    }

    /**
     * The step takes place after a while, on Reactor's parallel scheduler, or in virtual time where a test has that.
     *
     * @param time how long it waits
     * @return the fault
     */
    public static ProbeFault delay(Duration time) {
        return new ProbeFault("delay " + time, step -> Mono.delay(time).thenMany(step));
    }

    /**
     * The step takes place when the test lets it go on.
     *
     * @param hold holds it
     * @return the fault
     */
    public static ProbeFault hold(ProbeHold hold) {
        return new ProbeFault("hold", step -> hold.end().thenMany(step));
    }

    /**
     * The step takes place when something else has come to its end, and fails if that fails.
     *
     * @param condition called for each such step
     * @return the fault
     */
    public static ProbeFault delayUntil(Supplier<? extends Publisher<?>> condition) {
        return new ProbeFault(
                "delay until",
                step -> Flux.defer(() -> Flux.from(condition.get()).thenMany(step)));
    }

    /**
     * The step fails and has no effect.
     *
     * @param error makes the error, anew for each step
     * @return the fault
     */
    public static ProbeFault fail(Supplier<? extends Throwable> error) {
        return new ProbeFault("fail", step -> Flux.error(error));
    }

    /**
     * The step fails with an {@link R2dbcException} and has no effect.
     *
     * @param sqlState its SQLSTATE, such as {@code 08006}
     * @return the fault
     */
    public static ProbeFault fail(String sqlState) {
        return new ProbeFault("fail " + sqlState, step -> Flux.error(() -> error(sqlState)));
    }

    /**
     * The step has its effect, and then its answer is lost and an error comes instead: the outcome of a COMMIT is unknown.
     *
     * @param sqlState the SQLSTATE of the error
     * @return the fault
     */
    public static ProbeFault failAfter(String sqlState) {
        return new ProbeFault("fail after " + sqlState, step -> step.thenMany(Flux.error(() -> error(sqlState))), true);
    }

    /**
     * The step never ends, and has no effect.
     *
     * @return the fault
     */
    public static ProbeFault hang() {
        return HANG;
    }

    /**
     * The step is answered without having had an effect: no connection, no result, no row, no COMMIT.
     *
     * @return the fault
     */
    public static ProbeFault drop() {
        return DROP;
    }

    /**
     * What the step emits comes twice: the same connection, the same result, the same row; a step that emits nothing
     * completes twice, which the Reactive Streams specification forbids.
     *
     * @return the fault
     */
    public static ProbeFault duplicate() {
        return DUPLICATE;
    }

    private static R2dbcException error(String sqlState) {
        return new R2dbcNonTransientResourceException("A fault that the test has staged", sqlState);
    }

    boolean isNone() {
        return this == NONE;
    }

    /** Whether it has its effect, and what it answers is thrown away. */
    boolean losesAnswer() {
        return losesAnswer;
    }

    /** The step with the fault, until its connection is closed; the call's state follows it. */
    @SuppressWarnings("unchecked")
    <T> Flux<T> applyTo(Flux<T> step, ProbeCall call, Mono<?> closed) {
        Flux<Object> raw = (Flux<Object>) step;
        // what follows the state lets no second completion through
        return (Flux<T>)
                (this == DUPLICATE
                        ? change.apply(call.endingWith(raw))
                        : call.endingWith(change.apply(raw).takeUntilOther(closed)));
    }

    @SuppressWarnings("unchecked")
    <T> Flux<T> applyTo(Flux<T> row) {
        return (Flux<T>) change.apply((Flux<Object>) row);
    }

    @Override
    public String toString() {
        return name;
    }
}
