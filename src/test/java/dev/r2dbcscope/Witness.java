package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import org.junit.jupiter.api.extension.AfterEachCallback;
import org.junit.jupiter.api.extension.BeforeEachCallback;
import org.junit.jupiter.api.extension.ExtensionContext;
import reactor.core.publisher.Hooks;
import reactor.test.scheduler.VirtualTimeScheduler;

/**
 * Asserts after every test what must hold after all of them: each connection was closed, once, and was not used
 * afterwards; no scope is live; and nothing went to the drop hooks that the test did not take out of {@link
 * #droppedErrors()} or {@link #droppedValues()}.
 *
 * <p>A test that failed is not asked: its own error says more.
 */
final class Witness implements BeforeEachCallback, AfterEachCallback {

    private final List<ProbeConnectionFactory> databases = new CopyOnWriteArrayList<>();
    private final List<ConnectionScopes> scopes = new CopyOnWriteArrayList<>();
    private final List<Throwable> droppedErrors = new CopyOnWriteArrayList<>();
    private final List<Object> droppedValues = new CopyOnWriteArrayList<>();
    private boolean virtual;

    ProbeConnectionFactory watch(ProbeConnectionFactory database) {
        databases.add(database);
        return database;
    }

    ConnectionScopes watch(ConnectionScopes watched) {
        scopes.add(watched);
        return watched;
    }

    /** Errors that nobody could be told of. A test that expects some clears the list. */
    List<Throwable> droppedErrors() {
        return droppedErrors;
    }

    /** Values that came after the end. A test that expects some clears the list. */
    List<Object> droppedValues() {
        return droppedValues;
    }

    /** Lets time pass only when the test says so. */
    VirtualTimeScheduler virtualTime() {
        virtual = true;
        return VirtualTimeScheduler.getOrSet();
    }

    @Override
    public void beforeEach(ExtensionContext context) {
        Hooks.onErrorDropped(droppedErrors::add);
        Hooks.onNextDropped(droppedValues::add);
    }

    @Override
    public void afterEach(ExtensionContext context) {
        try {
            if (context.getExecutionException().isEmpty()) {
                databases.forEach(Witness::awaitClosed);
                scopes.forEach(Witness::awaitEnded);
                databases.forEach(database -> assertThat(database.violations()).isEmpty());
                assertThat(droppedErrors).as("dropped errors").isEmpty();
                assertThat(droppedValues).as("dropped values").isEmpty();
            }
        } finally {
            Hooks.resetOnErrorDropped();
            Hooks.resetOnNextDropped();
            if (virtual) {
                VirtualTimeScheduler.reset();
            }
        }
    }

    private static void awaitClosed(ProbeConnectionFactory database) {
        Await.until(() -> database.live() == 0, () -> "connections left open: " + database.log());
    }

    private static void awaitEnded(ConnectionScopes scopes) {
        Await.until(() -> scopes.live().isEmpty(), () -> "scopes left live: " + scopes.live());
    }
}
