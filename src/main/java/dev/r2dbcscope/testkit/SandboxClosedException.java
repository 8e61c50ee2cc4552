package dev.r2dbcscope.testkit;

import org.jspecify.annotations.Nullable;

/** A {@link RollbackSandbox} was used while it was not begun, or one of its connections after it was rolled back. */
public final class SandboxClosedException extends SandboxException {

    private static final long serialVersionUID = 1L;

    SandboxClosedException(String problem, @Nullable Throwable cause) {
        super(problem, cause);
    }
}
