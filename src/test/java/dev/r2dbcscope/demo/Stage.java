package dev.r2dbcscope.demo;

/** What every scene works with. */
record Stage(DemoDatabase database, DemoSettings settings, Screen screen, Report report) {}
