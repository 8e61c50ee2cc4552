package dev.r2dbcscope.testkit;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/** A fault that waits for its moment, or the wait for a moment alone. */
final class ArmedFault {

    private final NetworkTrigger trigger;
    private final @Nullable NetworkFault fault;
    private final Map<ProxiedConnection, NetworkWatch> watches = new ConcurrentHashMap<>();
    private final AtomicBoolean spent = new AtomicBoolean();
    private final Sinks.Empty<Void> struck = Sinks.empty();

    ArmedFault(NetworkTrigger trigger, @Nullable NetworkFault fault) {
        this.trigger = trigger;
        this.fault = fault;
    }

    boolean watches(boolean fromClient) {
        return trigger.isFromClient() == fromClient && !spent.get();
    }

    /** How far this connection is from the moment. */
    NetworkWatch on(ProxiedConnection connection) {
        return watches.computeIfAbsent(connection, c -> trigger.watch());
    }

    void forget(ProxiedConnection connection) {
        watches.remove(connection);
    }

    @Nullable
    NetworkFault fault() {
        return fault;
    }

    boolean isEverywhere() {
        return trigger.isEverywhere();
    }

    /** Says whether it was not spent before. */
    boolean spend() {
        return spent.compareAndSet(false, true);
    }

    void struck() {
        struck.tryEmitEmpty();
    }

    void disarm() {
        if (spend()) {
            struck.tryEmitError(
                    new IllegalStateException("The proxy was healed or closed before it struck " + trigger));
        }
    }

    Mono<Void> whenStruck() {
        return struck.asMono();
    }
}
