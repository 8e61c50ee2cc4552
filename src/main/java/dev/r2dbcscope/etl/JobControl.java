package dev.r2dbcscope.etl;

import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/**
 * Pauses, resumes and stops a run of a job, between two chunks. Thread-safe.
 *
 * <pre>{@code
 * JobControl control = JobControl.create();
 * Disposable running = job.run(target, control).subscribe();
 * control.stop();
 * }</pre>
 *
 * @see EtlJob#run(dev.r2dbcscope.ConnectionScopes, JobControl)
 */
public final class JobControl {

    private enum State {
        RUNNING,
        PAUSED,
        STOPPED
    }

    private final Sinks.Many<State> states = Sinks.many().replay().latestOrDefault(State.RUNNING);
    private State state = State.RUNNING;

    private JobControl() {}

    /**
     * Makes one that lets the job run.
     *
     * @return a control for one run; one that has stopped stays so
     */
    public static JobControl create() {
        return new JobControl();
    }

    /**
     * Lets no chunk begin until {@link #resume}. The chunks that are being written are committed; the sources are asked for no more
     * than they were. Connections that the job holds stay held, see {@link EtlJob#run}. Does nothing after {@link #stop}.
     */
    public void pause() {
        become(State.PAUSED);
    }

    /** Goes on after {@link #pause}. Does nothing after {@link #stop}. */
    public void resume() {
        become(State.RUNNING);
    }

    /**
     * Lets no chunk begin any more, cancels the sources, and completes the run when the chunks that are being written are
     * committed. The job is not finished: it goes on when it is run again.
     */
    public void stop() {
        become(State.STOPPED);
    }

    private synchronized void become(State next) {
        if (state != State.STOPPED) {
            state = next;
            states.tryEmitNext(next).orThrow();
        }
    }

    /** Whether {@link #stop} was called. */
    synchronized boolean isStopped() {
        return state == State.STOPPED;
    }

    /** Emits whether a chunk may begin, when it is not paused. */
    Mono<Boolean> mayBegin() {
        return states.asFlux().filter(each -> each != State.PAUSED).next().map(each -> each == State.RUNNING);
    }

    /** Completes when it is stopped. */
    Mono<Void> stopped() {
        return states.asFlux().filter(each -> each == State.STOPPED).next().then();
    }
}
