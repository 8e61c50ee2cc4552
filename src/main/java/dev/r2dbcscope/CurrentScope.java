package dev.r2dbcscope;

/** The scope that code runs in, as that code sees it. */
public final class CurrentScope {

    private CurrentScope() {}
}
