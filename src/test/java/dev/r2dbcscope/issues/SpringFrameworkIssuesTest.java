package dev.r2dbcscope.issues;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.Propagation;
import dev.r2dbcscope.Rows;
import dev.r2dbcscope.Settling;
import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.springframework.r2dbc.connection.ConnectionFactoryUtils;
import org.springframework.r2dbc.connection.R2dbcTransactionManager;
import org.springframework.transaction.TransactionDefinition;
import org.springframework.transaction.reactive.TransactionalOperator;
import org.springframework.transaction.support.DefaultTransactionDefinition;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Schedulers;
import reactor.test.scheduler.VirtualTimeScheduler;

/** Issues of spring-projects/spring-framework about connections that a transaction loses. */
class SpringFrameworkIssuesTest {

    private static final Duration LIMIT = Duration.ofMillis(100);
    private static final Duration LONG = Duration.ofSeconds(60);

    @AfterEach
    void realTime() {
        VirtualTimeScheduler.reset();
    }

    /** A database whose second BEGIN is answered when the test says so. */
    private static ProbeConnectionFactory withASlowSecondBegin(Sinks.Empty<Void> answer) {
        AtomicInteger begins = new AtomicInteger();
        return ProbeConnectionFactory.of()
                .onScheduler(() -> Schedulers.immediate())
                .on("begin", () -> begins.incrementAndGet() == 2 ? answer.asMono() : Mono.empty());
    }

    /**
     * An independent transaction inside another one exceeded a time limit of the pipeline, and its connection never came back.
     * Here it does, and the transaction around it goes on.
     */
    @Test
    @Tag("spring-framework#32115")
    void aTimeLimitOfAnIndependentTransactionLosesNoConnection() {
        VirtualTimeScheduler time = VirtualTimeScheduler.getOrSet();
        Sinks.Empty<Void> answer = Sinks.empty();
        ProbeConnectionFactory byHand = withASlowSecondBegin(answer);
        R2dbcTransactionManager manager = new R2dbcTransactionManager(byHand);
        TransactionalOperator separate = TransactionalOperator.create(
                manager, new DefaultTransactionDefinition(TransactionDefinition.PROPAGATION_REQUIRES_NEW));
        Mono<String> bare = Mono.just("work")
                .as(separate::transactional)
                .timeout(LIMIT)
                .onErrorResume(TimeoutException.class, e -> Mono.just("too late"))
                .as(TransactionalOperator.create(manager)::transactional);
        bare.subscribe();
        time.advanceTimeBy(LIMIT);
        answer.tryEmitEmpty();
        assertThat(byHand.live()).as("Spring was repaired").isPositive();

        Sinks.Empty<Void> answerInScope = Sinks.empty();
        ProbeConnectionFactory scoped = withASlowSecondBegin(answerInScope);
        ConnectionScopes scopes = ConnectionScopes.of(scoped);
        Mono<String> work = scopes.inTransaction(outer -> scopes.transactions(Propagation.REQUIRES_NEW)
                .inTransaction(inner -> Mono.just("work"))
                .timeout(LIMIT)
                .onErrorResume(TimeoutException.class, e -> Mono.just("too late")));
        Sinks.One<String> result = Sinks.one();
        work.subscribe(result::tryEmitValue);
        time.advanceTimeBy(LIMIT);
        answerInScope.tryEmitEmpty();
        assertThat(result.asMono().block(LONG)).isEqualTo("too late");
        Settling.assertSettled(scopes, scoped);
        assertThat(scoped.log())
                .containsExactlyInAnyOrder(
                        "create", "begin#1", "create", "begin#2", "rollback#2", "close#2", "commit#1", "close#1");
    }

    /**
     * Two parts of a pipeline that both asked for the first connection of a second database, at once, each opened one, and all
     * but the first failed and were lost. Here whoever asks while a connection is on its way gets that one.
     */
    @Test
    @Tag("spring-framework#37274")
    void whoeverAsksAtTheSameTimeGetsTheSameConnection() {
        Sinks.Empty<Void> connected = Sinks.empty();
        ProbeConnectionFactory other = ProbeConnectionFactory.of();
        ProbeConnectionFactory byHand = ProbeConnectionFactory.of();
        byHand.on("create", () -> connected.asMono().then(Mono.fromSupplier(byHand::newConnection)));
        Mono<?> bare = Mono.zip(
                        ConnectionFactoryUtils.getConnection(byHand), ConnectionFactoryUtils.getConnection(byHand))
                .as(TransactionalOperator.create(new R2dbcTransactionManager(other))::transactional);
        Sinks.One<Object> end = Sinks.one();
        bare.subscribe(end::tryEmitValue, end::tryEmitError);
        connected.tryEmitEmpty();
        assertThatThrownBy(() -> end.asMono().block(LONG))
                .as("Spring was repaired")
                .hasStackTraceContaining("Already value");
        assertThat(byHand.live()).as("Spring was repaired").isPositive();

        Sinks.Empty<Void> connectedInScope = Sinks.empty();
        ProbeConnectionFactory scoped = ProbeConnectionFactory.of().onScheduler(() -> Schedulers.immediate());
        scoped.on("create", () -> connectedInScope.asMono().then(Mono.fromSupplier(scoped::newConnection)));
        ConnectionScopes scopes = ConnectionScopes.of(scoped);
        ConnectionScopes around =
                ConnectionScopes.of(ProbeConnectionFactory.of().onScheduler(() -> Schedulers.immediate()));
        Mono<Integer> part = Mono.usingWhen(
                scopes.connectionFactory().create(),
                c -> Rows.ints(c, "select 1").next(),
                Connection::close);
        Sinks.One<Object> endInScope = Sinks.one();
        Mono.zip(part, part)
                .as(scopes::connected)
                .as(around::transactional)
                .subscribe(endInScope::tryEmitValue, endInScope::tryEmitError);
        connectedInScope.tryEmitEmpty();
        assertThat(endInScope.asMono().block(LONG)).isNotNull();
        Settling.assertSettled(scopes, scoped);
        assertThat(scoped.log()).containsExactly("create", "select 1#1", "select 1#1", "close#1");
    }
}
