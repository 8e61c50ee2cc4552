package dev.r2dbcscope.benchmarks;

import java.util.List;
import java.util.Locale;

/**
 * Transactions of a few bound inserts, one after the other by one caller, with added round-trip time: how long one takes, and how
 * many round trips it makes on the wire. The rows are counted after each measurement.
 */
final class TransactionsBenchmark implements Part {

    private static final List<Integer> STATEMENTS = List.of(1, 3, 10);
    private static final List<Integer> ROUND_TRIP_MILLIS = List.of(0, 1, 5, 20);

    /** With which added time the round trips are counted: long enough to tell what was sent without waiting for an answer. */
    private static final int COUNTED_AT_MILLIS = 5;

    /** After so many transactions on a connection, all drivers have prepared their statements. */
    private static final int WARM_UP = 20;

    /** How long something may still be on the wire when a transaction has ended. */
    private static final int SILENCE_MILLIS = 50;

    @Override
    public String name() {
        return "transactions";
    }

    @Override
    public String question() {
        return "A transaction of a few inserts, with added round-trip time";
    }

    @Override
    public void run(Extent extent, Report report) throws Exception {
        try (Server server = Server.start();
                Entries entries = Entries.create(server)) {
            for (int millis : extent.quick() ? List.of(0, COUNTED_AT_MILLIS) : ROUND_TRIP_MILLIS) {
                if (millis == 0) {
                    measure(extent, report, entries, millis, server.port());
                    continue;
                }
                try (DelayingProxy network = new DelayingProxy(server.port(), millis)) {
                    measure(extent, report, entries, millis, network.port());
                }
            }
            try (DelayingProxy network = new DelayingProxy(server.port(), COUNTED_AT_MILLIS)) {
                countRoundTrips(extent, report, entries, network);
            }
        }
    }

    private static String group(int statements, int millis) {
        return String.format(
                Locale.ROOT, "%d %s, %d ms", statements, statements == 1 ? "statement" : "statements", millis);
    }

    private static void measure(Extent extent, Report report, Entries entries, int millis, int port) throws Exception {
        int transactions = extent.quick() ? 2 : 50;
        try (TransactionSides sides = new TransactionSides(port)) {
            warmUp(sides);
            for (int statements : STATEMENTS) {
                Contest contest = new Contest(report, group(statements, millis), "ms a transaction");
                for (TransactionSide side : sides.all()) {
                    contest.add(side.name(), entries::clear, () -> {
                        Load load = side.transactions(statements).run(1, ClosedLoop.times(transactions));
                        entries.requireCount((long) transactions * statements);
                        return load.millis(50);
                    });
                }
                contest.run(extent.rounds());
            }
        }
    }

    /** A scope sends the first statement behind BEGIN when it knows how long a round trip takes. */
    private static void warmUp(TransactionSides sides) throws Exception {
        for (TransactionSide side : sides.all()) {
            side.transactions(1).run(1, ClosedLoop.times(WARM_UP));
        }
    }

    private static void countRoundTrips(Extent extent, Report report, Entries entries, DelayingProxy network)
            throws Exception {
        try (TransactionSides sides = new TransactionSides(network.port())) {
            warmUp(sides);
            for (TransactionSide side : sides.all()) {
                for (int statements : STATEMENTS) {
                    entries.clear();
                    String group = group(statements, COUNTED_AT_MILLIS);
                    ClosedLoop loop = side.transactions(statements);
                    for (int round = 1; round <= extent.rounds(); round++) {
                        report.add(group, side.name(), "round trips", round, roundTrips(network, loop));
                    }
                    entries.requireCount((long) extent.rounds() * statements);
                }
            }
        }
    }

    /** Of one transaction on a connection that is idle before and after it. */
    private static double roundTrips(DelayingProxy network, ClosedLoop loop) throws Exception {
        Thread.sleep(SILENCE_MILLIS);
        long before = network.roundTrips();
        loop.run(1, ClosedLoop.times(1));
        Thread.sleep(SILENCE_MILLIS);
        return network.roundTrips() - before;
    }
}
