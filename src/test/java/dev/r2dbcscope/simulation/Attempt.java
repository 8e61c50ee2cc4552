package dev.r2dbcscope.simulation;

import dev.r2dbcscope.ScopeOutcome;
import dev.r2dbcscope.TransactionOutcome;
import io.r2dbc.spi.Connection;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.SignalType;

/** One start of a scope's pipeline: what the reference model knows of it, and what it saw of the engine. */
final class Attempt {

    /** What a scope is, given what is around it. */
    enum Kind {
        /** Without a transaction, on a connection of its own. */
        PLAIN,
        /** A transaction on a connection of its own. */
        TRANSACTION,
        /** A transaction on the connection of the plain scope around it. */
        SECTION,
        SAVEPOINT,
        JOINED,
        REFUSED;

        boolean isTransactional() {
            return this == TRANSACTION || this == SECTION || this == SAVEPOINT;
        }

        boolean hasOwnConnection() {
            return this == PLAIN || this == TRANSACTION;
        }
    }

    final Run run;
    final @Nullable Connection handle;
    final List<Asked> statements = new ArrayList<>();
    final List<TransactionOutcome> hooks = new ArrayList<>();
    boolean hooked;
    boolean doomed;
    int emitted;

    @Nullable
    SignalType bodyEnd;

    long exiting;

    @Nullable
    ScopeOutcome outcome;

    @Nullable
    TransactionOutcome transaction;

    /** The physical connection on which its statements ran; zero if there were none. */
    int connection;

    Attempt(Run run, @Nullable Connection handle) {
        this.run = run;
        this.handle = handle;
    }

    /** The one that decides what becomes of its statements. */
    Attempt session() {
        Attempt level = this;
        while (level.run.kind == Kind.JOINED) {
            level = level.around();
        }
        return level;
    }

    /** The one that has the connection. */
    Attempt base() {
        Attempt level = session();
        while (!level.run.kind.hasOwnConnection()) {
            level = level.around().session();
        }
        return level;
    }

    /** The transaction of which its statements are a part, savepoints left aside. */
    @Nullable
    Attempt transaction() {
        Attempt level = session();
        while (level.run.kind == Kind.SAVEPOINT) {
            level = level.around().session();
        }
        return level.run.kind == Kind.PLAIN ? null : level;
    }

    /** The handle of the nearest closure that has the same connection. */
    @Nullable
    Connection nearestHandle() {
        Attempt level = this;
        while (level.handle == null) {
            if (level.run.kind.hasOwnConnection()) {
                return null;
            }
            level = level.around();
        }
        return level.handle;
    }

    private Attempt around() {
        Attempt around = run.around;
        if (around == null) {
            throw new AssertionError("nothing around " + run.name);
        }
        return around;
    }

    boolean bodyCompleted() {
        return bodyEnd == SignalType.ON_COMPLETE || run.node.shape().isMono() && emitted > 0;
    }

    /** One subscription to a scope, which may be tried several times. */
    static final class Run {

        final String name;
        final Node.Scope node;
        final @Nullable Attempt around;
        final Kind kind;
        final List<Attempt> attempts = new ArrayList<>();
        int opened;
        int released;

        @Nullable
        SignalType told;

        long toldAt;

        @Nullable
        Throwable error;

        Run(String name, Node.Scope node, @Nullable Attempt around) {
            this.name = name;
            this.node = node;
            this.around = around;
            this.kind = Plans.kind(node.mode(), around == null ? null : around.session().run.kind);
        }

        Attempt begin(@Nullable Connection handle) {
            Attempt attempt = new Attempt(this, handle);
            attempts.add(attempt);
            return attempt;
        }

        @Nullable
        Attempt last() {
            return attempts.isEmpty() ? null : attempts.get(attempts.size() - 1);
        }
    }

    /** A statement that the pipeline has asked for. */
    static final class Asked {

        final String sql;
        final Attempt attempt;
        final long asked;
        final boolean stray;
        boolean arrived;

        /** Something went wrong with it, so that its effect does not follow from its end. */
        boolean altered;

        Asked(String sql, Attempt attempt, long asked, boolean stray) {
            this.sql = sql;
            this.attempt = attempt;
            this.asked = asked;
            this.stray = stray;
        }
    }
}
