package dev.r2dbcscope.testkit;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;

/** What one connection has done and not yet committed. */
final class ProbeTransaction {

    private final Consumer<String> durable;
    private final BooleanSupplier aborts;
    private final List<String> pending = new ArrayList<>();
    private final Map<String, Integer> savepoints = new LinkedHashMap<>();
    private boolean open;
    private boolean aborted;

    ProbeTransaction(Consumer<String> durable, BooleanSupplier aborts) {
        this.durable = durable;
        this.aborts = aborts;
    }

    /** Whether one of its statements has failed, so that it takes no other. */
    synchronized boolean isAborted() {
        return aborted;
    }

    synchronized void failed() {
        aborted = open && aborts.getAsBoolean();
    }

    synchronized boolean isOpen() {
        return open;
    }

    /** Also what {@code setAutoCommit(false)} does. */
    synchronized void begin() {
        open = true;
    }

    synchronized void executed(String sql) {
        if (open) {
            pending.add(sql);
        } else {
            durable.accept(sql);
        }
    }

    synchronized void commit() {
        pending.forEach(durable);
        rollback();
    }

    synchronized void rollback() {
        pending.clear();
        savepoints.clear();
        open = false;
        aborted = false;
    }

    synchronized void savepoint(String name) {
        savepoints.remove(name);
        savepoints.put(name, pending.size());
    }

    synchronized void releaseSavepoint(String name) {
        forget(name, true);
    }

    synchronized void rollbackTo(String name) {
        Integer mark = savepoints.get(name);
        if (mark != null) {
            pending.subList(mark, pending.size()).clear();
            forget(name, false);
            aborted = false;
        }
    }

    /** Those that were set later go with it. */
    private void forget(String name, boolean itself) {
        boolean later = false;
        for (String each : List.copyOf(savepoints.keySet())) {
            if (later || (itself && each.equals(name))) {
                savepoints.remove(each);
            }
            later |= each.equals(name);
        }
    }
}
