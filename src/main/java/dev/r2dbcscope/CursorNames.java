package dev.r2dbcscope;

import java.util.BitSet;
import org.jspecify.annotations.Nullable;

/** The names of the cursors that are open on one physical connection, for as long as a scope holds it. */
final class CursorNames {

    private static final String PREFIX = "r2dbc_scope_";

    private @Nullable BitSet taken;
    private int holdable;
    private boolean closedAtEnd;

    /** Takes the first name that is free: few names make few statements, which drivers and servers keep prepared. */
    synchronized String take() {
        BitSet now = taken == null ? new BitSet() : taken;
        taken = now;
        int free = now.nextClearBit(0);
        now.set(free);
        return PREFIX + (free + 1);
    }

    /** There is no cursor of that name any more, or there never was. */
    synchronized void free(String name) {
        if (taken != null) {
            taken.clear(Integer.parseInt(name.substring(PREFIX.length())) - 1);
        }
    }

    /** A cursor is about to be opened that outlives its transaction; says whether somebody must be told to close it. */
    synchronized boolean opensHoldable() {
        holdable++;
        boolean first = !closedAtEnd;
        closedAtEnd = true;
        return first;
    }

    synchronized void closedHoldable() {
        holdable--;
    }

    /** Whether a cursor may be open that outlives its transaction. */
    synchronized boolean mayHold() {
        return holdable > 0;
    }
}
