package dev.r2dbcscope.demo;

import java.io.PrintStream;
import java.util.List;

/**
 * Loads a shop into PostgreSQL, runs each {@link Scene} on it, and says which claims held.
 *
 * <p>Exit code 0: every claim held. 1: one did not. 2: it could not begin, because of its arguments or the database.
 */
public final class Demo {

    static final int EVERY_CLAIM_HELD = 0;
    static final int A_CLAIM_FAILED = 1;
    static final int COULD_NOT_BEGIN = 2;

    private static final List<Scene> SCENES =
            List.of(new LoadScene(), new NestedScene(), new RawDriverScene(), new ManyScene(), new CancelScene());

    private Demo() {}

    public static void main(String[] args) {
        // exit() and not return: the raw driver's pipeline must not be able to keep the JVM alive
        System.exit(run(args, System.out, SCENES));
    }

    static int run(String[] args, PrintStream out) {
        return run(args, out, SCENES);
    }

    static int run(String[] args, PrintStream out, List<Scene> scenes) {
        try {
            DemoSettings settings = DemoSettings.parse(args);
            try (DemoDatabase database = DemoDatabase.open(settings.url())) {
                return run(new Stage(database, settings, new Screen(out), new Report()), scenes);
            }
        } catch (CannotBeginException e) {
            out.println(e.getMessage());
            return COULD_NOT_BEGIN;
        }
    }

    private static int run(Stage stage, List<Scene> scenes) {
        long start = System.nanoTime();
        Screen screen = stage.screen();
        screen.line(
                "%s, schema %s", stage.database().version(), stage.database().schema());
        for (Scene scene : scenes) {
            screen.line("");
            screen.line("== %s", scene.title());
            stage.report().scene(scene.name());
            try {
                scene.play(stage);
            } catch (RuntimeException e) {
                screen.line("  FAILED: %s", e);
                stage.report().claim("it runs to its end", "yes", String.valueOf(e), false);
            }
        }
        screen.line("");
        stage.report().print(screen);
        screen.line("%.1f s", (System.nanoTime() - start) / 1e9);
        return stage.report().everyClaimHeld() ? EVERY_CLAIM_HELD : A_CLAIM_FAILED;
    }
}
