package dev.r2dbcscope.demo;

import java.math.BigDecimal;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;

/**
 * The content of the shop: made up, but the same in every run, and shaped like the real thing. A few customers order
 * much, most orders have one or two lines, and recent orders are not delivered yet.
 */
final class ShopData {

    static final int CUSTOMERS = 20_000;
    static final int PRODUCTS = 1_000;

    private static final long SEED = 20_260_115;
    private static final long OPENED = Instant.parse("2024-01-01T00:00:00Z").getEpochSecond();
    private static final int SECONDS_BETWEEN_ORDERS = 314;

    private static final String[] FIRST = {
        "Ada", "Bela", "Carla", "Dimitri", "Elif", "Finn", "Greta", "Hugo", "Ines", "Jonas", "Katya", "Luca", "Mei",
        "Noor", "Olga", "Pablo", "Rosa", "Sven", "Tomas", "Yara"
    };
    private static final String[] LAST = {
        "Andersson",
        "Bianchi",
        "Costa",
        "Dubois",
        "Evans",
        "Fischer",
        "Garcia",
        "Horvat",
        "Ivanov",
        "Jansen",
        "Kowalski",
        "Larsen",
        "Meyer",
        "Nowak",
        "Okafor",
        "Papadakis",
        "Rossi",
        "Sato",
        "Tanaka",
        "Weber"
    };
    private static final String[] COUNTRIES = {"DE", "DE", "DE", "FR", "FR", "IT", "ES", "NL", "PL", "SE", "GB", "US"};
    private static final String[] MATERIALS = {
        "Oak", "Steel", "Linen", "Glass", "Cork", "Wool", "Bamboo", "Copper", "Leather", "Walnut"
    };
    private static final String[] THINGS = {
        "Chair", "Lamp", "Blanket", "Bowl", "Shelf", "Kettle", "Desk", "Mirror", "Basket", "Clock"
    };
    private static final int[] LINES = {1, 1, 1, 1, 2, 2, 2, 3, 4, 5};

    /** Columns of rows, as {@code unnest} takes them. */
    record Orders(Long[] ids, Long[] customers, Long[] placedAt, String[] statuses, Lines lines) {}

    record Lines(Long[] orders, Integer[] numbers, Long[] products, Integer[] quantities, BigDecimal[] prices) {

        BigDecimal amount() {
            BigDecimal amount = BigDecimal.ZERO;
            for (int i = 0; i < prices.length; i++) {
                amount = amount.add(prices[i].multiply(BigDecimal.valueOf(quantities[i])));
            }
            return amount;
        }
    }

    private record Line(long order, int number, long product, int quantity, BigDecimal price) {}

    private ShopData() {}

    static String customerName(int id) {
        SplittableRandom random = random(-id);
        return pick(FIRST, random) + " " + pick(LAST, random);
    }

    static String customerCountry(int id) {
        return pick(COUNTRIES, random(-id - CUSTOMERS));
    }

    static String productName(int id) {
        int index = id - 1;
        return MATERIALS[index % 10] + " " + THINGS[index / 10 % 10] + " No. " + (index / 100 + 1);
    }

    static BigDecimal productPrice(long id) {
        int euros = (int) Math.round(Math.exp(random(id * 31).nextDouble() * 4.5 + 1.5));
        return BigDecimal.valueOf(euros * 100L - 5, 2);
    }

    /** The orders from {@code first} to {@code last}, of {@code total}. */
    static Orders orders(int first, int last, int total) {
        int count = last - first + 1;
        Orders orders = new Orders(new Long[count], new Long[count], new Long[count], new String[count], null);
        List<Line> lines = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            int id = first + i;
            SplittableRandom random = random(id);
            orders.ids[i] = (long) id;
            orders.customers[i] = 1 + (long) (Math.pow(random.nextDouble(), 3) * CUSTOMERS);
            orders.placedAt[i] = OPENED + (long) id * SECONDS_BETWEEN_ORDERS + random.nextInt(SECONDS_BETWEEN_ORDERS);
            orders.statuses[i] = status(id, total, random);
            addLines(id, random, lines);
        }
        return new Orders(orders.ids, orders.customers, orders.placedAt, orders.statuses, columns(lines));
    }

    private static void addLines(int order, SplittableRandom random, List<Line> lines) {
        int count = LINES[random.nextInt(LINES.length)];
        for (int number = 1; number <= count; number++) {
            long product = 1 + (long) (Math.pow(random.nextDouble(), 2) * PRODUCTS);
            int quantity = random.nextInt(4) == 0 ? 2 + random.nextInt(4) : 1;
            lines.add(new Line(order, number, product, quantity, productPrice(product)));
        }
    }

    private static String status(int id, int total, SplittableRandom random) {
        if (random.nextInt(25) == 0) {
            return "CANCELLED";
        }
        if (id > total * 0.99) {
            return "NEW";
        }
        if (id > total * 0.97) {
            return "SHIPPED";
        }
        return random.nextInt(20) == 0 ? "RETURNED" : "DELIVERED";
    }

    private static Lines columns(List<Line> lines) {
        return new Lines(
                lines.stream().map(Line::order).toArray(Long[]::new),
                lines.stream().map(Line::number).toArray(Integer[]::new),
                lines.stream().map(Line::product).toArray(Long[]::new),
                lines.stream().map(Line::quantity).toArray(Integer[]::new),
                lines.stream().map(Line::price).toArray(BigDecimal[]::new));
    }

    private static SplittableRandom random(long row) {
        return new SplittableRandom(SEED + row * 0x9E3779B97F4A7C15L);
    }

    private static String pick(String[] values, SplittableRandom random) {
        return values[random.nextInt(values.length)];
    }
}
