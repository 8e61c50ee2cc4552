package dev.r2dbcscope.testkit;

import io.r2dbc.spi.R2dbcNonTransientException;
import org.jspecify.annotations.Nullable;

/** The root of the errors by which a {@link RollbackSandbox} says that it cannot do what a database would. */
public abstract class SandboxException extends R2dbcNonTransientException {

    private static final long serialVersionUID = 1L;

    SandboxException(String problem, @Nullable Throwable cause) {
        super(problem, cause);
    }
}
