package dev.r2dbcscope;

/**
 * Code inside a scope has registered more hooks than a scope keeps. The scope and its other hooks are not affected.
 *
 * @see CurrentScope#afterCommit
 */
public final class HookOverflowException extends ScopeException {

    private static final long serialVersionUID = 1L;

    HookOverflowException(int most, ScopeLabel scope) {
        super(
                "The scope has " + most
                        + " hooks already, each of which it keeps until its end; register one hook for many"
                        + " elements",
                scope,
                null,
                null);
    }
}
