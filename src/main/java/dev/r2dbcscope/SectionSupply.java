package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Mono;
import reactor.util.context.ContextView;

/**
 * The connection of an outer scope, for the length of a transaction inside it, or of a savepoint in its transaction.
 *
 * <p>It holds the outer scope's gate exclusively: siblings that use the same connection wait, so that none
 * of their statements becomes part of a transaction that is not theirs.
 */
final class SectionSupply implements Supply {

    private final Session outer;
    private final AtomicReference<@Nullable Section> section = new AtomicReference<>();

    SectionSupply(Session outer) {
        this.outer = outer;
    }

    @Override
    public void acquire(Entry entry, ContextView context) {
        outer.open(context)
                .subscribe(
                        opened -> {
                            Section mine = new Section(opened.gate(), entry, opened.connection(), context);
                            section.set(mine);
                            opened.gate().enter(mine);
                        },
                        entry::failed);
    }

    @Override
    public void abandon() {
        Section mine = section.get();
        if (mine != null) {
            mine.giveUp();
        }
    }

    @Override
    public Mono<Void> release(Connection connection) {
        return Mono.fromRunnable(this::leave);
    }

    @Override
    public Mono<Void> destroy(Connection connection) {
        return Mono.fromRunnable(outer::condemn);
    }

    private void leave() {
        Section mine = section.getAndSet(null);
        if (mine != null) {
            mine.leave();
        }
    }

    /** The time of the transaction, as the outer gate sees it. */
    private static final class Section extends Exchange {

        private final Gate gate;
        private final Entry entry;
        private final Connection connection;
        private final ContextView context;

        Section(Gate gate, Entry entry, Connection connection, ContextView context) {
            this.gate = gate;
            this.entry = entry;
            this.connection = connection;
            this.context = context;
        }

        @Override
        boolean isExclusive() {
            return true;
        }

        @Override
        boolean holdsForOthers() {
            return true;
        }

        @Override
        String sql() {
            return (entry.session().isSavepoint() ? "the savepoint of " : "the transaction of ")
                    + entry.session().label();
        }

        @Override
        @Nullable
        Pause pause() {
            return entry.session().pause();
        }

        @Override
        void start() {
            entry.received(connection, context);
        }

        @Override
        void refuse(RuntimeException error) {
            entry.failed(error);
        }

        @Override
        void drain() {
            // its statements pass a gate of their own
        }

        @Override
        void abandon(RuntimeException error) {
            // its session is part of the pipeline that was abandoned, and ends by itself
        }

        void leave() {
            gate.ended(this);
        }

        /** Takes it out of the outer gate's queue, if it is still there. */
        void giveUp() {
            if (withdraw()) {
                gate.withdrawn();
                entry.failed(entry.session().closedError());
            }
        }
    }
}
