package dev.r2dbcscope.testkit;

import org.jspecify.annotations.Nullable;

/**
 * A connection of a {@link RollbackSandbox} waited in vain for another one whose transaction was open and did nothing
 * meanwhile. Usually both belong to the same request, which needs two connections at once, as {@code REQUIRES_NEW} does; see
 * {@link SandboxOptions#withNesting}.
 */
public final class SandboxBusyException extends SandboxException {

    private static final long serialVersionUID = 1L;

    SandboxBusyException(String problem, @Nullable Throwable cause) {
        super(problem, cause);
    }
}
