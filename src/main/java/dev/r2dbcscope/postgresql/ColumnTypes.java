package dev.r2dbcscope.postgresql;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Readable;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * The types of the columns that a binary COPY writes. The server takes any eight bytes for a timestamp, whatever they were
 * written as, so what is written has to be compared with them before it is sent.
 *
 * <p>A <em>form</em> is how values look in binary: the OID of their type, that of {@code text} for all types that are
 * text, and for an array the negative OID of its elements' type, which the server wants to be the same one.
 */
final class ColumnTypes {

    /** The form of NULL, which fits everywhere, and of types that are not known here, which everything fits. */
    static final int ANY = 0;

    static final int BOOLEAN = 16;
    static final int BYTEA = 17;
    static final int BIGINT = 20;
    static final int SMALLINT = 21;
    static final int INTEGER = 23;
    static final int TEXT = 25;
    static final int JSON = 114;
    static final int REAL = 700;
    static final int DOUBLE_PRECISION = 701;
    static final int VARCHAR = 1043;
    static final int DATE = 1082;
    static final int TIME = 1083;
    static final int TIMESTAMP = 1114;
    static final int TIMESTAMPTZ = 1184;
    static final int INTERVAL = 1186;
    static final int NUMERIC = 1700;
    static final int UUID = 2950;
    static final int JSONB = 3802;

    private static final int NAME = 19;
    private static final int XML = 142;
    private static final int BPCHAR = 1042;

    /**
     * A table that is not there has no rows in the answer, and a column that is not there none: COPY itself says so then. Names
     * are cut as COPY cuts them. A domain is what it is over. Only a type of variable length with elements is an array.
     */
    private static final String QUERY = "with recursive written(place, declared, type) as ("
            + "select n.place, a.atttypid, a.atttypid"
            + " from pg_catalog.unnest($2::pg_catalog.text[]) with ordinality as n(name, place)"
            + " join pg_catalog.pg_attribute a on a.attrelid = pg_catalog.to_regclass($1)"
            + " and a.attname = n.name::pg_catalog.name and a.attnum > 0 and not a.attisdropped"
            + " union all select w.place, w.declared, t.typbasetype from written w"
            + " join pg_catalog.pg_type t on t.oid = w.type where t.typtype = 'd')"
            + " select w.place::pg_catalog.int4 as place, t.oid::pg_catalog.int8 as type,"
            + " (case when t.typlen = -1 then t.typelem else 0 end)::pg_catalog.int8 as element,"
            + " pg_catalog.format_type(w.declared, null) as declared, pg_catalog.format_type(t.oid, null) as base"
            + " from written w join pg_catalog.pg_type t on t.oid = w.type where t.typtype <> 'd'";

    private final int[] forms;
    private final @Nullable Column[] columns;

    /**
     * @param type the OID of a type that is known here, negative if that is the type of an array's elements
     * @param declared the column's type as the server shows it
     * @param base the same, or what it is a domain over
     */
    private record Column(int place, int type, String declared, String base) {

        static Column of(Readable row) {
            long element = number(row, "element");
            return new Column(
                    (int) number(row, "place") - 1,
                    element == 0 ? known(number(row, "type")) : -known(element),
                    Objects.requireNonNull(row.get("declared", String.class)),
                    Objects.requireNonNull(row.get("base", String.class)));
        }

        private static long number(Readable row, String name) {
            return Objects.requireNonNull(row.get(name, Long.class));
        }

        String shown() {
            return declared.equals(base) ? base : declared + ", which is " + base;
        }
    }

    private ColumnTypes(int count, List<Column> known) {
        forms = new int[count];
        columns = new @Nullable Column[count];
        for (Column column : known) {
            forms[column.place()] = form(column.type());
            columns[column.place()] = column;
        }
    }

    /** Nothing is known of them. */
    static ColumnTypes unknown(int count) {
        return new ColumnTypes(count, List.of());
    }

    /**
     * Asks the database, in one round trip.
     *
     * @param table the table's name, quoted
     * @param names the columns' names, as they are
     */
    static Mono<ColumnTypes> of(Connection connection, String table, List<String> names) {
        return Flux.defer(() -> Flux.from(connection
                        .createStatement(QUERY)
                        .bind(0, table)
                        .bind(1, names.toArray(String[]::new))
                        .execute()))
                .concatMap(result -> result.map(Column::of))
                .collectList()
                .map(known -> new ColumnTypes(names.size(), known));
    }

    private static int known(long oid) {
        return oid == NAME || oid == XML || oid == BPCHAR || CopyType.ofOid(oid) != null ? (int) oid : ANY;
    }

    private static int form(int type) {
        return switch (type) {
            case VARCHAR, BPCHAR, NAME, JSON, XML -> TEXT;
            default -> type;
        };
    }

    /** Whether a value of that form can be stored in a column as what it is. */
    boolean fit(int column, int form) {
        int expected = forms[column];
        return expected == form || expected == ANY || form == ANY;
    }

    /** What is wrong with a value that does not fit, and what to do. */
    String problem(int column, int form) {
        Column is = Objects.requireNonNull(columns[column]);
        return "the column is of type " + is.shown() + ", but what was written is of type " + sqlName(form)
                + ", whose bytes would mean something else there; " + remedy(is.type())
                + "use withFormat(CopyFormat.TEXT), with which the server converts";
    }

    private static String sqlName(int form) {
        return Objects.requireNonNull(CopyType.ofOid(Math.abs(form))).sqlName() + (form < 0 ? "[]" : "");
    }

    private static String remedy(int type) {
        CopyType<?> exact = CopyType.ofOid(Math.abs(type));
        CopyType<?> same = exact == null && type > 0 ? CopyType.ofOid(form(type)) : exact;
        return same == null ? "" : "write it as CopyType." + constant(same) + (type < 0 ? ".array()" : "") + ", or ";
    }

    /** The constants are named like their types. */
    private static String constant(CopyType<?> type) {
        return type.sqlName().toUpperCase(Locale.ROOT).replace(' ', '_');
    }
}
