package dev.r2dbcscope;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.Parameter;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.provider.MethodSource;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.test.subscriber.TestSubscriber;

/** What the tests that are run for every {@link Form} of a scope have in common. */
@ParameterizedClass(name = "{0}")
@MethodSource("dev.r2dbcscope.Form#all")
abstract class FormContract {

    static final Duration PATIENCE = Duration.ofSeconds(60);

    @Parameter
    Form form;

    @RegisterExtension
    final Witness witness = new Witness();

    final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());

    final List<ScopeEvent> events = new ArrayList<>();

    ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database)
            .with(ScopeOptions.defaults().withName("contract").withListener(events::add)));

    @BeforeEach
    void stage() {
        form.stage(database);
    }

    boolean isMono() {
        return form.shape().mono;
    }

    boolean isTransactional() {
        return form.shape().transactional;
    }

    /** The scope under test. */
    <T> Flux<T> scope(Function<Connection, Publisher<T>> body) {
        return form.of(scopes, body);
    }

    /** Subscribes to the scope under test. */
    <T> TestSubscriber<T> run(Function<Connection, Publisher<T>> body) {
        TestSubscriber<T> subscriber = TestSubscriber.create();
        scope(body).subscribe(subscriber);
        return subscriber;
    }

    /** Subscribes to the scope under test and waits for its end. */
    <T> TestSubscriber<T> runToEnd(Function<Connection, Publisher<T>> body) {
        TestSubscriber<T> subscriber = run(body);
        subscriber.block(PATIENCE);
        return subscriber;
    }

    /** What the scope did to its only connection, without the statements. */
    List<String> steps(String... between) {
        List<String> steps = new ArrayList<>(List.of("create"));
        if (isTransactional()) {
            steps.add("begin#1");
        }
        steps.addAll(List.of(between));
        steps.add("close#1");
        return steps;
    }

    List<String> committed() {
        return isTransactional() ? steps("commit#1") : steps();
    }

    List<String> rolledBack() {
        return isTransactional() ? steps("rollback#1") : steps();
    }

    <E extends ScopeEvent> List<E> events(Class<E> type) {
        return events.stream().filter(type::isInstance).map(type::cast).toList();
    }
}
