package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.ConnectionScopes;
import io.r2dbc.spi.Connection;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/**
 * The connections of one partitioned read, and who of them reads which partition.
 *
 * <p>Each worker is a scope that lends its connection and stays until it is not needed any more. The partitions ask for one in
 * their order, so in an ordered read the one whose turn it is never waits for a worker that waits for its turn. The first worker
 * exports the snapshot, and stays at least as long as another one may be about to import it: until every partition has a
 * worker.
 */
final class PartitionCrew<T> {

    private final ConnectionScopes scopes;
    private final PartitionedRead description;
    private final Function<Partition, Function<Connection, Flux<T>>> reading;
    private final Sinks.One<Export> exported = Sinks.one();
    private final Sinks.Empty<Void> staffed = Sinks.empty();
    private final Sinks.Empty<Void> failed = Sinks.empty();
    private final AtomicReference<@Nullable Throwable> failure = new AtomicReference<>();

    private final Queue<Worker> idle = new ArrayDeque<>();
    private final Queue<Sinks.One<Worker>> vacancies = new ArrayDeque<>();
    private final List<Worker> workers = new ArrayList<>();
    private int unread = Integer.MAX_VALUE;
    private boolean over;

    private record Export(String snapshot, List<Partition> partitions) {}

    private record Worker(Connection connection, Sinks.Empty<Void> dismissal) {}

    PartitionCrew(
            ConnectionScopes scopes,
            PartitionedRead description,
            Function<Partition, Function<Connection, Flux<T>>> reading) {
        this.scopes = scopes;
        this.description = description;
        this.reading = reading;
    }

    Flux<T> read() {
        Flux<T> rows = exported.asMono()
                .flatMapMany(export -> merged(export.partitions()))
                .takeUntilOther(failed.asMono())
                .doOnComplete(this::finish)
                .onErrorResume(this::fail);
        Flux<T> helpers = exported.asMono()
                .flatMapMany(export -> Flux.range(
                                1,
                                Math.min(
                                                description.connections(),
                                                export.partitions().size())
                                        - 1)
                        .flatMap(i -> helper(export.snapshot()), description.connections()));
        return Flux.merge(rows, helpers, exporter().onErrorResume(this::fail)).concatWith(Mono.defer(() -> {
            Throwable error = failure.get();
            return error == null ? Mono.empty() : Mono.error(error);
        }));
    }

    private Flux<T> merged(List<Partition> partitions) {
        int atOnce = description.connections();
        int ahead = description.fetchSize();
        Flux<Partition> all = Flux.fromIterable(partitions);
        return description.plan().ordered()
                ? all.flatMapSequential(this::read, atOnce, ahead)
                : all.flatMap(this::read, atOnce, ahead);
    }

    private Flux<T> read(Partition partition) {
        return Mono.defer(this::assign)
                .flatMapMany(worker ->
                        reading.apply(partition).apply(worker.connection()).doOnComplete(() -> release(worker)));
    }

    // the workers ----------------------------------------------------------------------------------------------------

    private Flux<T> exporter() {
        return Snapshot.exporting(
                scopes,
                connection -> Snapshot.export(connection)
                        .flatMap(snapshot -> description
                                .plan()
                                .hold(connection)
                                .then(description.partitions(connection))
                                .map(partitions -> new Export(snapshot, partitions)))
                        .flatMap(export -> {
                            open(export.partitions().size());
                            exported.tryEmitValue(export);
                            return join(connection);
                        })
                        .then(Mono.<T>empty()));
    }

    /** One that has no connection yet is done without as soon as there is nothing left for it, or if it gets none. */
    private Publisher<T> helper(String snapshot) {
        AtomicReference<@Nullable Connection> own = new AtomicReference<>();
        AtomicReference<@Nullable Worker> joined = new AtomicReference<>();
        return Snapshot.<T>reading(scopes, connection -> {
                    own.set(connection);
                    return Snapshot.use(connection, snapshot)
                            .then(description.plan().hold(connection))
                            .then(Mono.defer(() -> join(connection, joined)))
                            .then(Mono.<T>empty());
                })
                .takeUntilOther(
                        staffed.asMono().then(Mono.defer(() -> joined.get() == null ? Mono.empty() : Mono.never())))
                .onErrorResume(e -> own.get() == null ? Mono.empty() : fail(e));
    }

    private Mono<Void> join(Connection connection) {
        return join(connection, new AtomicReference<>());
    }

    /** Completes when the worker is not needed any more. */
    private Mono<Void> join(Connection connection, AtomicReference<@Nullable Worker> joined) {
        Worker worker = new Worker(connection, Sinks.empty());
        synchronized (this) {
            joined.set(worker);
            workers.add(worker);
        }
        release(worker);
        return worker.dismissal().asMono();
    }

    private synchronized void open(int partitions) {
        unread = partitions;
    }

    private Mono<Worker> assign() {
        Worker free;
        Sinks.One<Worker> vacancy = Sinks.one();
        synchronized (this) {
            unread--;
            free = idle.poll();
            if (free == null) {
                vacancies.add(vacancy);
            }
        }
        if (free == null) {
            return vacancy.asMono();
        }
        dismissIfStaffed();
        return Mono.just(free);
    }

    private void release(Worker worker) {
        Sinks.One<Worker> vacancy;
        synchronized (this) {
            vacancy = over ? null : vacancies.poll();
            if (vacancy == null) {
                idle.add(worker);
            }
        }
        if (vacancy != null) {
            vacancy.tryEmitValue(worker);
        }
        dismissIfStaffed();
    }

    /** Lets those go who are not needed any more. */
    private void dismissIfStaffed() {
        List<Worker> free;
        synchronized (this) {
            if (!over && (unread > 0 || !vacancies.isEmpty())) {
                return;
            }
            free = List.copyOf(idle);
            idle.clear();
        }
        staffed.tryEmitEmpty();
        free.forEach(worker -> worker.dismissal().tryEmitEmpty());
    }

    // the ends -------------------------------------------------------------------------------------------------------

    private void finish() {
        synchronized (this) {
            over = true;
        }
        dismissIfStaffed();
    }

    /** Ends everything with the first error; each worker rolls back with it. */
    private Mono<T> fail(Throwable error) {
        if (failure.compareAndSet(null, error)) {
            List<Worker> all;
            synchronized (this) {
                over = true;
                all = List.copyOf(workers);
            }
            failed.tryEmitEmpty();
            exported.tryEmitEmpty();
            all.forEach(worker -> worker.dismissal().tryEmitError(error));
            dismissIfStaffed();
        }
        return Mono.empty();
    }
}
