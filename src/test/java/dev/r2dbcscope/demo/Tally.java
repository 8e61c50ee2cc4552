package dev.r2dbcscope.demo;

import java.math.BigDecimal;
import java.util.HashSet;
import java.util.Set;

/** What a pipeline has added up. Belongs to one pipeline and needs no lock: its signals are serial. */
final class Tally {

    private long orders;
    private long lines;
    private BigDecimal amount = BigDecimal.ZERO;
    private final Set<Integer> backends = new HashSet<>();

    void add(Shop.Bill bill) {
        orders++;
        lines += bill.lines();
        amount = amount.add(bill.amount());
        backends.add(bill.backend());
    }

    int backends() {
        return backends.size();
    }

    /** The sum of the whole, in the words in which {@link #askedOf} asks the server for it. */
    @Override
    public String toString() {
        return orders + " orders, " + lines + " lines, " + amount;
    }

    /** The same sum by one SQL aggregate. */
    static String askedOf(DemoDatabase database, int orders) {
        return database.one(
                "select count(distinct order_id) || ' orders, ' || count(*) || ' lines, ' || sum(quantity * unit_price)"
                        + " from order_lines where order_id <= " + orders,
                String.class);
    }
}
