package dev.r2dbcscope.testkit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.platform.engine.discovery.DiscoverySelectors.selectClass;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.ScopeOptions;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.MethodOrderer;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestMethodOrder;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.testkit.engine.EngineTestKit;
import org.junit.platform.testkit.engine.EventType;
import org.opentest4j.TestAbortedException;
import reactor.core.Disposable;
import reactor.core.Disposables;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The extension, by small test classes that leak in each way. */
class LeakExtensionTest {

    /** Once, because it ends with everything that it has leaked. */
    private static final Map<String, TestExecutionResult> results = run(Leaking.class);

    /** What became of each test of a class, by the name of its method. */
    private static Map<String, TestExecutionResult> run(Class<?> tests) {
        Map<String, TestExecutionResult> results = new HashMap<>();
        EngineTestKit.engine("junit-jupiter")
                .selectors(selectClass(tests))
                .execute()
                .testEvents()
                .filter(event -> event.getType() == EventType.FINISHED)
                .forEach(event -> results.put(
                        event.getTestDescriptor().getDisplayName().replace("()", ""),
                        event.getRequiredPayload(TestExecutionResult.class)));
        return results;
    }

    private static Throwable failure(Map<String, TestExecutionResult> results, String test) {
        return Objects.requireNonNull(results.get(test))
                .getThrowable()
                .orElseThrow(() -> new AssertionError(test + " has not failed"));
    }

    private static void assertSuccessful(Map<String, TestExecutionResult> results, String test) {
        assertThat(Objects.requireNonNull(results.get(test)).getStatus())
                .as(test)
                .isEqualTo(TestExecutionResult.Status.SUCCESSFUL);
    }

    private static Connection taken(ConnectionFactory factory) {
        return Mono.<Connection>fromDirect(factory.create()).blockOptional().orElseThrow();
    }

    /** Each leak is followed by a test that leaks nothing, with what the former has left. */
    @TestMethodOrder(MethodOrderer.OrderAnnotation.class)
    static class Leaking {

        @RegisterExtension
        static final LeakExtension leaks = LeakExtension.of().withPatience(Duration.ofMillis(20));

        static final ProbeHold hold = ProbeHold.of();
        static final ProbeConnectionFactory probe = ProbeConnectionFactory.of().on("select 1", ProbeFault.hold(hold));
        static final Disposable.Composite started = Disposables.composite();
        static final ConnectionFactory connections = leaks.watch(probe);
        static final ConnectionScopes scopes =
                ConnectionScopes.of(connections).with(ScopeOptions.defaults().withName("orders"));
        static @Nullable Connection left;

        @Test
        @Order(1)
        void leaksAConnection() {
            left = taken(connections);
        }

        @Test
        @Order(2)
        void usesTheConnectionOfTheOneBefore() {
            Connection connection = Objects.requireNonNull(left);
            Mono.from(connection.close()).block();
            connection.createStatement("late");
        }

        @Test
        @Order(3)
        void leaksAScope() {
            started.add(scopes.withConnectionMany(c ->
                            Flux.from(c.createStatement("select 1").execute()).flatMap(result -> result.map(row -> 1)))
                    .subscribe());
        }

        @Test
        @Order(4)
        void usesAHandleTooLate() {
            Connection escaped =
                    scopes.withConnection(Mono::just).blockOptional().orElseThrow();
            Mono.fromRunnable(() -> escaped.createStatement("insert"))
                    .onErrorComplete()
                    .block();
        }

        @Test
        @Order(5)
        void failsAndLeaks() {
            taken(connections);
            throw new IllegalStateException("of the test");
        }

        @Test
        @Order(6)
        void isAbortedAndLeaks() {
            taken(connections);
            throw new TestAbortedException("no such database");
        }

        /** Nothing of it is to be met by other tests. */
        @AfterAll
        static void end() {
            started.dispose();
            hold.release();
        }

        @Test
        @Order(7)
        void isClean() {
            scopes.inTransaction(c -> Mono.just(1)).block();
        }
    }

    @Test
    void failsTheTestThatLeaksAndNoOther() {
        assertThat(failure(results, "leaksAConnection"))
                .isInstanceOf(AssertionError.class)
                .hasMessageStartingWith("leaksAConnection() leaves 1 leak, after waiting for PT0.02S:\n  1. connection"
                        + " taken at " + LeakExtensionTest.class.getName() + ".taken(LeakExtensionTest.java:")
                .hasMessageEndingWith("; never used");
        assertSuccessful(results, "usesTheConnectionOfTheOneBefore");
        assertThat(failure(results, "leaksAScope"))
                .hasMessageContaining("1. scope 'orders' assembled at " + Leaking.class.getName() + ".leaksAScope(")
                .hasMessageContaining("\"select 1\", held for");
        assertThat(failure(results, "usesAHandleTooLate"))
                .hasMessageStartingWith("usesAHandleTooLate() leaves 1 leak:\n  1. scope 'orders'")
                .hasMessageContaining("was used after its end: \"insert\"");
        assertSuccessful(results, "isClean");
    }

    @Test
    void doesNotHideTheErrorOfTheTest() {
        assertThat(failure(results, "failsAndLeaks"))
                .isExactlyInstanceOf(IllegalStateException.class)
                .hasMessage("of the test");
        assertThat(failure(results, "failsAndLeaks").getSuppressed())
                .singleElement()
                .satisfies(leak -> assertThat(leak).hasMessageStartingWith("failsAndLeaks() leaves 1 leak"));
    }

    @Test
    void failsATestThatWasAborted() {
        assertThat(failure(results, "isAbortedAndLeaks"))
                .isInstanceOf(AssertionError.class)
                .hasMessageStartingWith("isAbortedAndLeaks() leaves 1 leak");
        assertThat(results.get("isAbortedAndLeaks").getStatus()).isEqualTo(TestExecutionResult.Status.FAILED);
    }

    /** What is held for longer than a test, or given back by {@code @AfterEach}. */
    static class WithFixtures {

        @RegisterExtension
        static final LeakExtension leaks = LeakExtension.of().withPatience(Duration.ZERO);

        static final ConnectionFactory connections = leaks.watch(ProbeConnectionFactory.of());
        static @Nullable Connection forAll;

        @Nullable
        Connection forEach;

        @BeforeAll
        static void takeForAll() {
            forAll = taken(connections);
        }

        @BeforeEach
        void takeForEach() {
            forEach = taken(connections);
        }

        @Test
        void usesBoth() {
            for (Connection connection : List.of(Objects.requireNonNull(forAll), Objects.requireNonNull(forEach))) {
                Flux.from(connection.createStatement("select 1").execute()).blockLast();
            }
        }

        @AfterEach
        void closeForEach() {
            Mono.from(Objects.requireNonNull(forEach).close()).block();
        }

        @AfterAll
        static void closeForAll() {
            Mono.from(Objects.requireNonNull(forAll).close()).block();
        }
    }

    @Test
    void leavesFixturesAlone() {
        assertSuccessful(run(WithFixtures.class), "usesBoth");
    }

    /** Two factories, one of them known by its scopes only. */
    static class WithTwoDatabases {

        @RegisterExtension
        static final LeakExtension leaks = LeakExtension.of().withPatience(Duration.ZERO);

        static final Disposable.Composite started = Disposables.composite();
        static final ConnectionFactory first = leaks.watch(ProbeConnectionFactory.of());
        static final ConnectionScopes second = leaks.watch(ConnectionScopes.of(ProbeConnectionFactory.of()));

        @Test
        void leaksInBoth() {
            taken(first);
            started.add(second.withConnection(c -> Mono.never()).subscribe());
        }

        @AfterAll
        static void end() {
            started.dispose();
        }
    }

    @Test
    void watchesSeveralFactories() {
        assertThat(failure(run(WithTwoDatabases.class), "leaksInBoth"))
                .hasMessageContaining("2 leaks:")
                .hasMessageContaining("1. connection taken at")
                .hasMessageContaining("2. scope 'LeakExtensionTest$WithTwoDatabases.leaksInBoth'");
    }

    /** As with the beans of a framework: the test cannot hand anything in. */
    @ExtendWith(LeakExtension.class)
    static class WithBeans {

        static final ConnectionFactory bean = LeakAssertions.shared().watch(ProbeConnectionFactory.of());

        @Test
        void usesAHandleTooLate() {
            Connection connection = taken(bean);
            Mono.from(connection.close()).block();
            connection.createStatement("late");
        }
    }

    @Test
    void sharesOneByItsName() {
        assertThat(failure(run(WithBeans.class), "usesAHandleTooLate"))
                .hasMessageContaining("was used after its close: \"late\", by " + WithBeans.class.getName());
    }

    @Test
    void refusesANegativePatience() {
        assertThatThrownBy(() -> LeakExtension.of().withPatience(Duration.ofMillis(-1)))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("patience must not be negative: PT-0.001S");
    }
}
