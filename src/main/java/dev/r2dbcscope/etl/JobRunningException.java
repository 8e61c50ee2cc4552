package dev.r2dbcscope.etl;

import io.r2dbc.spi.R2dbcNonTransientException;

/**
 * A job was not started, or was ended, because the same job is run by somebody else. Nothing that the other one has done is lost,
 * and nothing is done twice.
 *
 * @see EtlJob#withTakeover
 */
public final class JobRunningException extends R2dbcNonTransientException {

    private static final long serialVersionUID = 1L;

    /** Its name. */
    private final String job;

    /** Whether the job's lock could not be had. */
    private final boolean locked;

    private JobRunningException(String job, String problem, boolean locked) {
        super("Job \"" + job + "\" " + problem);
        this.job = job;
        this.locked = locked;
    }

    static JobRunningException locked(EtlJob<?> job) {
        return new JobRunningException(
                job.name(),
                "is run by another connection, which holds its lock, and did not release it within " + job.lockWait()
                        + "; let that one end, stop it, or take over with EtlJob.withTakeover(true)",
                true);
    }

    static JobRunningException takenOver(String job) {
        return new JobRunningException(
                job,
                "was taken over by another run, or forgotten; this run ends, and what it has committed stays",
                false);
    }

    boolean isAboutTheLock() {
        return locked;
    }

    /**
     * Returns which job.
     *
     * @return its name
     */
    public String job() {
        return job;
    }
}
