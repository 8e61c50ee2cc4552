package dev.r2dbcscope.demo;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.Postgres;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class DemoIT {

    private static final String URL = "r2dbc:postgresql://postgres:postgres@localhost:" + Postgres.port() + "/postgres";

    private final ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    private final PrintStream out = new PrintStream(bytes, true, StandardCharsets.UTF_8);

    private String printed() {
        return bytes.toString(StandardCharsets.UTF_8);
    }

    private static long schemasLeft() {
        return Postgres.number("select count(*) from pg_namespace where nspname like 'r2dbc_scope_demo_%'");
    }

    @Test
    void everyClaimHoldsOnASmallShop() {
        int code = Demo.run(new String[] {"--orders", "4000", "--stall", "2", "--url", URL}, out);

        assertThat(code).as(printed()).isZero();
        assertThat(printed())
                .contains("STALLED: no bill for 2 s")
                .contains("live() after 1,000 of 2,000: 1 hold a connection, 0 wait")
                .contains("18 of 18 claims held")
                .doesNotContain("FAILED");
        assertThat(schemasLeft()).isZero();
    }

    @Test
    void aViolatedClaimGivesOne() {
        Scene liar = new OneClaim(stage -> stage.report().claim("one is", 1L, 2L));

        assertThat(Demo.run(new String[] {"--url", URL}, out, List.of(liar))).isEqualTo(1);
        assertThat(printed()).contains("FAILED").contains("0 of 1 claims held");
        assertThat(schemasLeft()).isZero();
    }

    @Test
    void aSceneThatThrowsGivesOneAndTheNextStillPlays() {
        Scene broken = new OneClaim(stage -> {
            throw new IllegalStateException("torn curtain");
        });
        Scene honest = new OneClaim(stage -> stage.report().claim("one is", 1L, 1L));

        assertThat(Demo.run(new String[] {"--url", URL}, out, List.of(broken, honest)))
                .isEqualTo(1);
        assertThat(printed()).contains("torn curtain").contains("1 of 2 claims held");
        assertThat(schemasLeft()).isZero();
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "no url at all",
                "r2dbc:postgresql://postgres:topsecret@localhost:1/postgres",
                "r2dbc:h2:mem:///demo",
                "r2dbc:nosuchdriver://localhost/postgres",
            })
    void aBadUrlGivesTwoAndOneLine(String url) {
        assertThat(Demo.run(new String[] {"--url", url}, out)).isEqualTo(2);
        assertThat(printed().lines())
                .singleElement()
                .asString()
                .startsWith("R2DBC_URL cannot be used: ")
                .doesNotContain("topsecret");
    }

    @ParameterizedTest
    @ValueSource(strings = {"--orders", "--orders many", "--orders 10", "--stall 0", "--colour red"})
    void badArgumentsGiveTwoAndOneLine(String arguments) {
        assertThat(Demo.run(arguments.split(" "), out)).isEqualTo(2);
        assertThat(printed().lines()).hasSize(1);
    }

    private interface Play {
        void on(Stage stage);
    }

    private record OneClaim(Play play) implements Scene {

        @Override
        public String name() {
            return "test";
        }

        @Override
        public String title() {
            return "A scene of the test";
        }

        @Override
        public void play(Stage stage) {
            play.on(stage);
        }
    }
}
