package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import dev.r2dbcscope.postgresql.Notification;
import dev.r2dbcscope.postgresql.Notifications;
import dev.r2dbcscope.postgresql.OnConflict;
import dev.r2dbcscope.postgresql.UnnestWriter;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** Names and values of whoever means harm: they are names and values, or are refused, and never a statement. */
class InjectionIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    private final WatchedPool pool = WatchedPool.of(2);

    static Stream<String> hostile() {
        return Stream.of(
                "x\"; drop table victims; --",
                "x'; drop table victims; --",
                "x\\'; drop table victims; --",
                "$$; drop table victims; $$",
                "x', true); drop table victims; --",
                "$1",
                "\u00fcn\u00ef \u2028 \ud83d\ude00",
                "\"",
                "'",
                "\\",
                ";");
    }

    @BeforeEach
    void victims() {
        Postgres.execute("drop schema if exists injection cascade; create schema injection;"
                + " drop table if exists victims; create table victims (n int)");
    }

    @AfterEach
    void theyAreUnharmed() {
        assertThat(Postgres.number("select count(*) from victims")).isZero();
        pool.assertWhole();
        pool.close();
    }

    private static String quoted(String name) {
        return '"' + name.replace("\"", "\"\"") + '"';
    }

    @ParameterizedTest
    @MethodSource("hostile")
    void tablesAndColumnsThatAreWrittenInBulk(String name) {
        String table = "injection." + quoted(name);
        Postgres.execute("create table " + table + " (" + quoted(name) + " text primary key)");
        CopyIn<String> copy = CopyIn.<String>into("injection", name).column(name, CopyType.TEXT, value -> value);
        UnnestWriter<String> unnest =
                UnnestWriter.<String>into("injection", name).column(name, "text", value -> value);

        assertThat(copy.write(pool.scopes, Flux.just(name, name + "2")).block(LONG))
                .isEqualTo(2);
        assertThat(unnest.write(pool.scopes, Flux.just(name + "3")).block(LONG)).isEqualTo(1);
        assertThat(unnest.withOnConflict(OnConflict.doNothing(name))
                        .write(pool.scopes, Flux.just(name))
                        .block(LONG))
                .isZero();
        assertThatThrownBy(() -> unnest.write(pool.scopes, Flux.just(name)).block(LONG))
                .isInstanceOf(io.r2dbc.spi.R2dbcException.class);
        assertThat(Postgres.number("select count(*) from " + table)).isEqualTo(3);
    }

    @ParameterizedTest
    @MethodSource("hostile")
    void channelsAndPayloads(String name) {
        List<String> heard = Notifications.of(pool.scopes)
                .listen(name)
                .concatMap(notification -> notification instanceof Notification.Received received
                        ? Mono.just(received.channel() + received.payload())
                        : notify(name).then(Mono.<String>empty()))
                .take(1)
                .collectList()
                .block(LONG);
        assertThat(heard).containsExactly(name + name);
    }

    private Mono<Void> notify(String name) {
        return pool.scopes.withConnection(c -> Flux.from(c.createStatement("select pg_notify($1, $1)")
                        .bind(0, name)
                        .execute())
                .concatMap(result -> result.map((row, metadata) -> 1))
                .then());
    }

    private static Mono<String> setting(Connection connection, String key) {
        return Flux.from(connection
                        .createStatement("select current_setting($1)")
                        .bind(0, key)
                        .execute())
                .concatMap(result -> result.map((row, metadata) -> row.get(0, String.class)))
                .single();
    }

    @ParameterizedTest
    @MethodSource("hostile")
    void valuesOfSessionSettings(String value) {
        Postgres.execute("drop role if exists " + quoted(value) + "; create role " + quoted(value) + "; grant "
                + quoted(value) + " to postgres");
        SessionSettings settings = SessionSettings.none()
                .with("app.tenant", value)
                .withSearchPath(value, "public")
                .withRole(value);
        ConnectionScopes scopes = pool.with(options -> options.withSettings(settings));
        for (Mono<List<String>> scope : List.of(
                scopes.withConnectionMany(InjectionIT::settings).collectList(),
                scopes.inTransactionMany(InjectionIT::settings).collectList())) {
            assertThat(scope.block(LONG)).containsExactly(value, quoted(value) + ", \"public\"", value);
        }
        assertThat(pool.scopes
                        .withConnectionMany(InjectionIT::settings)
                        .collectList()
                        .block(LONG))
                .as("of the next borrower")
                .doesNotContain(value);
        Postgres.execute("drop role " + quoted(value));
    }

    private static Flux<String> settings(Connection connection) {
        return Flux.just("app.tenant", "search_path", "role").concatMap(key -> setting(connection, key));
    }

    @ParameterizedTest
    @MethodSource("hostile")
    void namesOfApplications(String value) {
        String shown = pool.with(
                        options -> options.withSettings(SessionSettings.none().withApplicationName(value)))
                .inTransaction(c -> setting(c, "application_name"))
                .block(LONG);
        assertThat(shown)
                .as("the server replaces what is not ASCII")
                .isEqualTo(value.chars().allMatch(c -> c < 128) ? value : shown);
    }

    @ParameterizedTest
    @MethodSource("hostile")
    void keysOfSessionSettingsAreRefused(String key) {
        assertThatThrownBy(() -> SessionSettings.none().with(key, "x")).isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> SessionSettings.none().fromContext("app." + key, context -> "x"))
                .isInstanceOf(IllegalArgumentException.class);
    }

    /** The driver makes the name part of its SQL text as it is. */
    @ParameterizedTest
    @MethodSource("hostile")
    void namesOfSavepointsAreRefused(String name) {
        pool.scopes
                .inTransaction(c -> {
                    assertThatThrownBy(() -> c.createSavepoint(name)).isInstanceOf(IllegalArgumentException.class);
                    assertThatThrownBy(() -> c.releaseSavepoint(name)).isInstanceOf(IllegalArgumentException.class);
                    assertThatThrownBy(() -> c.rollbackTransactionToSavepoint(name))
                            .isInstanceOf(IllegalArgumentException.class);
                    return Mono.empty();
                })
                .block(LONG);
    }

    @Test
    void namesOfSavepointsThatAreNames() {
        for (String name : List.of("a", "A_1$", "\u00fc", quoted("x\"; drop table victims; --"), "\"a b\"")) {
            Boolean kept = pool.scopes
                    .inTransaction(c -> Mono.from(c.createSavepoint(name))
                            .then(Mono.from(c.rollbackTransactionToSavepoint(name)))
                            .then(Mono.from(c.releaseSavepoint(name)))
                            .thenReturn(true))
                    .block(LONG);
            assertThat(kept).isTrue();
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"\0", "a\0b", ""})
    void namesThatAreNoneAreRefused(String name) {
        assertThatThrownBy(() -> CopyIn.<String>into(name)
                        .column("a", CopyType.TEXT, value -> value)
                        .write(pool.scopes, Flux.just("x")))
                .isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> UnnestWriter.<String>into(name)).isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> Notifications.of(pool.scopes).listen(name))
                .isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> SessionSettings.none().with(name, "x")).isInstanceOf(IllegalArgumentException.class);
    }

    @Test
    void aValueWithNulIsRefusedAndTheConnectionIsFine() {
        ConnectionScopes scopes =
                pool.with(options -> options.withSettings(SessionSettings.none().with("app.tenant", "a\0b")));
        assertThatThrownBy(() -> scopes.inTransaction(c -> Mono.just(1)).block(LONG))
                .isInstanceOf(SessionSettingException.class);
        assertThatThrownBy(() -> scopes.withConnection(c -> Mono.just(1)).block(LONG))
                .isInstanceOf(SessionSettingException.class);
    }

    /** A fetch size makes a query part of a DECLARE, whose cursor the library names itself. */
    @Test
    void whatIsBoundToAPagedQueryStaysAValue() {
        for (String value : hostile().toList()) {
            List<String> read = pool.scopes
                    .inTransactionMany(c -> Flux.from(c.createStatement("select $1::text from generate_series(1, 3)")
                                    .bind(0, value)
                                    .fetchSize(2)
                                    .execute())
                            .concatMap(result -> result.map((row, metadata) -> row.get(0, String.class))))
                    .collectList()
                    .block(LONG);
            assertThat(read).containsExactly(value, value, value);
        }
    }
}
