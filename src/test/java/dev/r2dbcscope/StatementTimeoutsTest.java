package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import io.r2dbc.spi.R2dbcTimeoutException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Mono;

/** Timeouts that the database keeps: which error says that one of them was exceeded. */
class StatementTimeoutsTest {

    private static final Duration SHORT = Duration.ofMillis(1);

    private static final Duration LONG = Duration.ofHours(1);

    @RegisterExtension
    final Witness witness = new Witness();

    @RegisterExtension
    final LogCapture logged = new LogCapture();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final NotingDriver driver = new NotingDriver(database);
    private final List<ScopeEvent> events = new ArrayList<>();
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database));
    private final R2dbcTimeoutException timeout = new R2dbcTimeoutException("of the database");

    /** After more than the shortest timeout. */
    private Mono<Integer> later() {
        return Mono.delay(Duration.ofMillis(5)).then(Mono.error(timeout));
    }

    private @Nullable Throwable error(ScopeOptions options, Function<Connection, Publisher<?>> before) {
        database.on("slow", this::later);
        Probe<Integer> probe = Probe.unbounded();
        scopes.with(options.withListener(events::add))
                .inTransactionMany(c -> Mono.from(before.apply(c)).thenMany(Rows.ints(c, "slow")))
                .subscribe(probe);
        return probe.awaitEnd().error();
    }

    private @Nullable Throwable error(ScopeOptions options) {
        return error(options, c -> Mono.empty());
    }

    @Test
    void ofTheStatementIsToldAsSuch() {
        assertThat(error(ScopeOptions.defaults().withStatementTimeout(SHORT)))
                .isInstanceOfSatisfying(ScopeTimeoutException.class, told -> {
                    assertThat(told.limit()).isEqualTo(ScopeTimeoutException.Limit.STATEMENT);
                    assertThat(told.bound()).isEqualTo(SHORT);
                })
                .hasMessageContaining("slow")
                .hasCause(timeout);
        assertThat(driver.noted()).containsExactly("statement " + SHORT);
    }

    @Test
    void ofALockComesFirst() {
        assertThat(error(ScopeOptions.defaults().withStatementTimeout(SHORT).withLockWaitTimeout(SHORT)))
                .isInstanceOfSatisfying(
                        ScopeTimeoutException.class,
                        told -> assertThat(told.limit()).isEqualTo(ScopeTimeoutException.Limit.LOCK_WAIT))
                .hasMessageContaining("withLockWaitTimeout")
                .hasCause(timeout);
    }

    @Test
    void isTheDriversOwnErrorIfItWasNotLongEnough() {
        assertThat(error(ScopeOptions.defaults().withStatementTimeout(LONG).withLockWaitTimeout(LONG)))
                .isSameAs(timeout);
        assertThat(error(ScopeOptions.defaults())).isSameAs(timeout);
    }

    @Test
    void isTheDriversOwnErrorIfItsCodeHasSetAnother() {
        assertThat(error(ScopeOptions.defaults().withStatementTimeout(SHORT), c -> c.setStatementTimeout(LONG)))
                .isSameAs(timeout);
        assertThat(error(ScopeOptions.defaults().withLockWaitTimeout(SHORT), c -> c.setLockWaitTimeout(LONG)))
                .isSameAs(timeout);
    }

    @Test
    void isItsOwnAgainIfItsCodeHasSetTheSame() {
        assertThat(error(ScopeOptions.defaults().withStatementTimeout(SHORT), c -> c.setStatementTimeout(SHORT)))
                .isInstanceOf(ScopeTimeoutException.class);
    }

    @Test
    void isThatOfTheScopeAroundInATransactionInside() {
        database.on("slow", this::later);
        Probe<Integer> probe = Probe.unbounded();
        scopes.with(ScopeOptions.defaults().withStatementTimeout(SHORT).withLockWaitTimeout(SHORT))
                .withConnectionMany(c -> scopes.inTransactionMany(t -> Rows.ints(t, "slow")))
                .subscribe(probe);
        assertThat(probe.awaitEnd().error())
                .isInstanceOfSatisfying(
                        ScopeTimeoutException.class,
                        told -> assertThat(told.limit()).isEqualTo(ScopeTimeoutException.Limit.LOCK_WAIT));
    }

    @Test
    void areNoneInAPlainScopeUnderTransactionPooling() {
        ScopeOptions pooling = ScopeOptions.defaults().withTransactionPooling(true);
        for (ScopeOptions options : List.of(
                pooling.withStatementTimeout(LONG),
                pooling.withLockWaitTimeout(LONG),
                pooling.withSettings(SessionSettings.none().with("app.tenant", "a")))) {
            Probe<Integer> probe = Probe.unbounded();
            scopes.with(options).withConnection(c -> Mono.just(1)).subscribe(probe);
            assertThat(probe.awaitEnd().error())
                    .isInstanceOf(TransactionPoolingException.class)
                    .hasMessageContaining("set it in a transaction, to which it is local");
        }
        assertThat(database.log()).isEmpty();
    }

    @Test
    void aConnectionIsDestroyedIfItIsNotKnownWhichSettingsItHas() {
        driver.on("settings", () -> Mono.error(new IllegalStateException("lost")));
        assertThat(withSettings()).isInstanceOf(IllegalStateException.class).hasMessage("lost");
        assertThat(isDestroyed()).isTrue();
    }

    @Test
    void anErrorThatEndsTheConnectionIsNoRefusalOfASetting() {
        R2dbcNonTransientResourceException gone = new R2dbcNonTransientResourceException("gone", "08006");
        driver.on("settings", () -> Mono.error(gone));
        assertThat(withSettings()).isSameAs(gone);
    }

    @Test
    void aRefusalNamesTheSettingsAndNotTheirValues() {
        driver.on("settings", () -> Mono.error(new R2dbcNonTransientResourceException("no", "22023")));
        assertThat(withSettings())
                .isInstanceOf(SessionSettingException.class)
                .hasMessageContaining("app.tenant")
                .hasMessageContaining("22023")
                .hasMessageNotContaining("secret");
        assertThat(isDestroyed()).isFalse();
    }

    private @Nullable Throwable withSettings() {
        return error(ScopeOptions.defaults().withSettings(SessionSettings.none().with("app.tenant", "secret")));
    }

    private boolean isDestroyed() {
        return events.stream().anyMatch(ScopeEvent.ReleaseFailed.class::isInstance);
    }

    @Test
    void aConnectionThatKeepsPreparedStatementsIsRefusedUnderTransactionPooling() {
        driver.on("cache", () -> Mono.just(true));
        Throwable error = error(ScopeOptions.defaults().withTransactionPooling(true));
        assertThat(error)
                .isInstanceOfSatisfying(
                        TransactionPoolingException.class,
                        refused -> assertThat(refused.feature()).isEqualTo("The driver's statement cache"))
                .hasMessageContaining("preparedStatementCacheQueries(0)");
        assertThat(database.log()).containsExactly("create", "close#1");
    }

    @Test
    void aConnectionThatKeepsNoneIsAskedOnce() {
        driver.on("cache", () -> Mono.just(false));
        ConnectionPool pool = new ConnectionPool(ConnectionPoolConfiguration.builder(database)
                .initialSize(0)
                .maxSize(1)
                .build());
        ConnectionScopes pooled =
                ConnectionScopes.of(pool).with(ScopeOptions.defaults().withTransactionPooling(true));
        for (int i = 0; i < 3; i++) {
            pooled.withConnection(c -> pooled.inTransaction(t -> Mono.just(1))).block(FormContract.PATIENCE);
        }
        pool.disposeLater().block(FormContract.PATIENCE);
        assertThat(driver.noted()).containsExactly("cache");
    }
}
