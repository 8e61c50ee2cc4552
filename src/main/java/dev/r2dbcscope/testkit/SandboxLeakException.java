package dev.r2dbcscope.testkit;

import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Connections of a {@link RollbackSandbox} were still open when it was rolled back, which was done all the same.
 *
 * @see #origins()
 */
public final class SandboxLeakException extends SandboxException {

    private static final long serialVersionUID = 1L;

    /** Where they were created. */
    private final List<String> origins;

    SandboxLeakException(String problem, List<String> origins, @Nullable Throwable cause) {
        super(problem, cause);
        this.origins = List.copyOf(origins);
    }

    /**
     * Where the connections were created that were not closed.
     *
     * @return class, method, file and line of each
     */
    public List<String> origins() {
        return origins;
    }
}
