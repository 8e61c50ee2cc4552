package dev.r2dbcscope.testkit;

/** A statement would have done by its SQL text what a {@link RollbackSandbox} cannot allow, such as {@code COMMIT}. */
public final class SandboxUnsupportedException extends SandboxException {

    private static final long serialVersionUID = 1L;

    SandboxUnsupportedException(String problem) {
        super(problem, null);
    }
}
