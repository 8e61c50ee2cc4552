package dev.r2dbcscope.etl;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.Postgres;
import dev.r2dbcscope.WatchedPool;
import java.io.BufferedReader;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * A job whose process is killed again and again, and started again each time. {@code -Detl.kills=200} kills it 200 times, each
 * way; the gate has a few.
 */
class EtlKilledIT {

    private static final int KILLS = Integer.getInteger("etl.kills", 5);
    private static final long SEED = Long.getLong("etl.seed", System.nanoTime());

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void everyRowIsThereOnce(boolean takeover) throws IOException, InterruptedException {
        Postgres.execute("drop table if exists killed_source, killed_target, r2dbc_scope_checkpoints;"
                + " create table killed_target (id bigint, note text);"
                + " create table killed_source (id bigint primary key, note text);"
                + " insert into killed_source select i, md5(i::text) from generate_series(1, " + KilledJob.ROWS
                + ") i");
        WatchedPool watched = WatchedPool.of(1);
        Checkpoints.defaults().create(watched.scopes).block(Duration.ofSeconds(60));
        Random random = new Random(SEED);
        int perRun = KilledJob.ROWS / 500 / (KILLS + 1);
        int kills = 0;
        boolean done = false;
        while (!done) {
            boolean kill = kills < KILLS;
            List<String> said = run(takeover, kill ? 1 + random.nextInt(Math.max(1, 2 * perRun)) : -1, random);
            done = said.contains("done");
            if (!done) {
                assertThat(kill)
                        .as("it was not killed, and said %s; seed %d", said, SEED)
                        .isTrue();
                kills++;
            }
        }

        assertThat(Postgres.number("select count(*) from killed_target")).isEqualTo(KilledJob.ROWS);
        assertThat(Postgres.number("select count(*) from (select * from killed_source except all"
                        + " select * from killed_target) missing"))
                .as("seed %d", SEED)
                .isZero();
        assertThat(Checkpoints.defaults()
                        .of(watched.scopes, "killed")
                        .map(Checkpoint::rows)
                        .reduce(0L, Long::sum)
                        .block(Duration.ofSeconds(60)))
                .isEqualTo(KilledJob.ROWS);
        assertThat(kills).isPositive();
        watched.assertWhole();
        watched.close();
    }

    /** Kills it soon after it has said that many chunks; never for a negative number. */
    private static List<String> run(boolean takeover, int chunks, Random random)
            throws IOException, InterruptedException {
        Process process = new ProcessBuilder(
                        Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                        "-XX:TieredStopAtLevel=1",
                        "-XX:+UseSerialGC",
                        "-Xmx128m",
                        "-cp",
                        System.getProperty("java.class.path"),
                        KilledJob.class.getName(),
                        Integer.toString(Postgres.port()),
                        Boolean.toString(takeover))
                .redirectErrorStream(true)
                .start();
        List<String> said = new ArrayList<>();
        try (BufferedReader lines = process.inputReader(StandardCharsets.UTF_8)) {
            int seen = 0;
            for (String line = lines.readLine(); line != null && seen != chunks; line = lines.readLine()) {
                said.add(line);
                seen += line.startsWith("chunk") ? 1 : 0;
            }
            LockSupport.parkNanos(random.nextInt(5_000_000));
        } finally {
            process.destroyForcibly();
            process.waitFor();
        }
        return said;
    }
}
