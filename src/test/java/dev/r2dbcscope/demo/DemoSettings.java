package dev.r2dbcscope.demo;

import java.time.Duration;

/**
 * What can be chosen from outside.
 *
 * @param orders how many orders are loaded; the scenes scale with it
 * @param url an R2DBC URL, or null for an embedded server
 * @param stall how long the raw driver may stay silent until it counts as stalled
 */
record DemoSettings(int orders, String url, Duration stall) {

    private static final String USAGE = "usage: [--orders N (1000 to 2000000, default 200000)] [--stall SECONDS (1 to"
            + " 60, default 4)] [--url R2DBC_URL (default: environment variable or system property R2DBC_URL, or else an"
            + " embedded server)]";

    static DemoSettings parse(String[] args) {
        int orders = 200_000;
        int stall = 4;
        String url = presetUrl();
        for (int i = 0; i < args.length; i += 2) {
            if (i + 1 == args.length) {
                throw new CannotBeginException("no value for " + args[i] + "; " + USAGE);
            }
            String value = args[i + 1];
            switch (args[i]) {
                case "--orders" -> orders = number(args[i], value, 1_000, 2_000_000);
                case "--stall" -> stall = number(args[i], value, 1, 60);
                case "--url" -> url = value;
                default -> throw new CannotBeginException("unknown argument " + args[i] + "; " + USAGE);
            }
        }
        return new DemoSettings(orders, url, Duration.ofSeconds(stall));
    }

    /** For how many orders the nested pipelines run: half of them. */
    int nestedOrders() {
        return orders / 2;
    }

    /** For how many orders each of the many pipelines runs. */
    int ordersPerPipeline() {
        return Math.max(10, orders / 400);
    }

    private static String presetUrl() {
        String property = System.getProperty("R2DBC_URL", "");
        String preset = property.isBlank() ? System.getenv("R2DBC_URL") : property;
        return preset == null || preset.isBlank() ? null : preset;
    }

    private static int number(String argument, String value, int least, int most) {
        try {
            int number = Integer.parseInt(value);
            if (number >= least && number <= most) {
                return number;
            }
        } catch (NumberFormatException e) {
            // said below
        }
        throw new CannotBeginException(argument + " must be a number from " + least + " to " + most + ": " + value);
    }
}
