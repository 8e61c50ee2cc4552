package dev.r2dbcscope.demo;

import java.util.ArrayList;
import java.util.List;

/** The claims of the demo, and whether they held. */
final class Report {

    private final List<Claim> claims = new ArrayList<>();
    private String scene = "";

    private record Claim(String scene, String words, String expected, String seen, boolean held) {}

    void scene(String name) {
        scene = name;
    }

    void claim(String words, Object expected, Object seen) {
        claim(words, expected, seen, expected.equals(seen));
    }

    void claim(String words, Object expected, Object seen, boolean held) {
        claims.add(new Claim(scene, words, shown(expected), shown(seen), held));
    }

    boolean everyClaimHeld() {
        return !claims.isEmpty() && claims.stream().allMatch(Claim::held);
    }

    void print(Screen screen) {
        TextTable table = new TextTable("scene", "claim", "expected", "seen", "ok");
        for (Claim claim : claims) {
            table.row(claim.scene, claim.words, claim.expected, claim.seen, claim.held ? "ok" : "FAILED");
        }
        table.print(screen, "");
        long held = claims.stream().filter(Claim::held).count();
        screen.line("%d of %d claims held", held, claims.size());
    }

    private static String shown(Object value) {
        return value instanceof Number number && !(value instanceof java.math.BigDecimal)
                ? String.format(java.util.Locale.ROOT, "%,d", number.longValue())
                : String.valueOf(value);
    }
}
