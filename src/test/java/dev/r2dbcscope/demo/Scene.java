package dev.r2dbcscope.demo;

/** One thing that the demo shows. */
interface Scene {

    /** One word for the summary. */
    String name();

    /** One line that says what is shown. */
    String title();

    /** Shows it and adds its claims to the report. */
    void play(Stage stage);
}
