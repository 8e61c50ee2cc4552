package dev.r2dbcscope.testkit;

import dev.r2dbcscope.PipelinedBegin;
import dev.r2dbcscope.testkit.ProbeCall.Kind;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.TransactionDefinition;
import java.util.List;
import java.util.Map;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** BEGIN with statements right behind, for connections that serve their steps in order. */
final class ProbeBegin implements PipelinedBegin {

    static final ProbeBegin STEPS = new ProbeBegin();

    private ProbeBegin() {}

    /** Whoever wraps a probe's connection is part of the test. */
    @Override
    public boolean isInOrder(Connection wrapper) {
        return true;
    }

    @Override
    public Publisher<Boolean> isAvailable(Connection connection) {
        ProbeConnectionFactory probe = ProbeConnection.of(connection).probe();
        Publisher<?> scripted = probe.scripted("pipelining");
        return scripted == null ? Mono.just(true) : Flux.from(scripted).cast(Boolean.class);
    }

    /** The settings wait for their turn right behind BEGIN. */
    @Override
    public Publisher<?> begin(Connection connection, TransactionDefinition definition, Map<String, String> settings) {
        Mono<Boolean> begin = Mono.from(connection.beginTransaction(definition)).thenReturn(true);
        if (settings.isEmpty()) {
            return begin;
        }
        Mono<Boolean> set = ProbeConnection.of(connection)
                .step(Kind.SETTING, "set local " + String.join(",", settings.keySet()), () -> {})
                .thenReturn(true);
        return Flux.mergeSequentialDelayError(List.of(begin, set), 2, 1);
    }

    @Override
    public boolean mayFollow(String sql) {
        return !sql.startsWith("lock");
    }

    @Override
    public Publisher<Void> guard(Connection connection) {
        return ProbeConnection.of(connection).guard();
    }
}
