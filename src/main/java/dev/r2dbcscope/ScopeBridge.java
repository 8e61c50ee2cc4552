package dev.r2dbcscope;

/** Bridges to code that leaves the Reactor world. */
public final class ScopeBridge {

    private ScopeBridge() {}
}
