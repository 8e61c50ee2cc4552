package dev.r2dbcscope.simulation;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryMetadata;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashMap;
import java.util.Map;
import java.util.Queue;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.MonoSink;
import reactor.core.publisher.SignalType;

/**
 * A pool of the size that it is told, served first come, first served, on one thread: r2dbc-pool needs ten times as long.
 * Without a size it opens a connection for each borrower and closes it afterwards.
 */
final class Pool implements ConnectionFactory {

    private final ProbeConnectionFactory probe;
    private final History history;
    private final int size;
    private final Queue<MonoSink<Connection>> waiting = new ArrayDeque<>();
    private final Deque<Connection> idle = new ArrayDeque<>();
    private final Map<Integer, Lease> leases = new HashMap<>();
    private int lent;

    Pool(ProbeConnectionFactory probe, int size, History history) {
        this.probe = probe;
        this.size = size;
        this.history = history;
    }

    int size() {
        return size;
    }

    int lent() {
        return lent;
    }

    @Nullable
    Lease lease(int number) {
        return leases.get(number);
    }

    @Override
    public Publisher<? extends Connection> create() {
        if (size == 0) {
            return new Tracked<>(Flux.<Connection>from(probe.create()).map(this::lend), new Tracked.Watch() {
                @Override
                public void begins() {}

                @Override
                public void ends(SignalType how) {
                    history.require(how != SignalType.CANCEL, () -> "an acquisition was cancelled");
                }
            });
        }
        return Mono.<Connection>create(sink -> {
            waiting.add(sink);
            serve();
        });
    }

    private void serve() {
        while (lent < size && !waiting.isEmpty()) {
            MonoSink<Connection> next = waiting.remove();
            lent++;
            Connection free = idle.poll();
            if (free != null) {
                next.success(lend(free));
            } else {
                open(next);
            }
        }
    }

    private void open(MonoSink<Connection> next) {
        Mono.<Connection>from(probe.create()).materialize().subscribe(signal -> {
            Connection opened = signal.get();
            if (opened != null) {
                next.success(lend(opened));
                return;
            }
            lent--;
            Throwable error = signal.getThrowable();
            if (error == null) {
                next.success();
            } else {
                next.error(error);
            }
            serve();
        });
    }

    private Lease lend(Connection connection) {
        int number = Integer.parseInt(connection.toString().substring("ProbeConnection#".length()));
        Lease lease = new Lease(connection, number, history, this::takeBack);
        if (size > 0) {
            leases.put(number, lease);
        } else {
            leases.putIfAbsent(number, lease); // of one that a fault hands out twice, the first is used
        }
        return lease;
    }

    private Publisher<Void> takeBack(Lease lease) {
        if (size == 0) {
            return lease.isDestroyed() ? Mono.empty() : lease.physical().close();
        }
        lent--;
        if (!lease.isDestroyed()) {
            idle.add(lease.physical());
        }
        serve();
        return Mono.empty();
    }

    /** Closes what is idle. */
    void close() {
        idle.forEach(connection -> Mono.from(connection.close()).subscribe(null, error -> {}));
        idle.clear();
    }

    @Override
    public ConnectionFactoryMetadata getMetadata() {
        return probe.getMetadata();
    }
}
