package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.postgresql.AdvisoryLock;
import dev.r2dbcscope.postgresql.Notifications;
import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import java.time.Duration;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

/** Locks and notifications as values, and on a database that has none. */
class PostgresqlExtrasTest {

    private static final Duration PATIENCE = Duration.ofSeconds(60);

    @RegisterExtension
    private final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database));

    @Test
    void locksAreEqualIfTheyAreTheSame() {
        AdvisoryLock lock = AdvisoryLock.of(4_294_967_298L);
        assertThat(lock).isEqualTo(AdvisoryLock.of(4_294_967_298L)).hasSameHashCodeAs(AdvisoryLock.of(4_294_967_298L));
        assertThat(lock).isNotEqualTo(AdvisoryLock.of(1, 2)).isNotEqualTo(lock.shared());
        assertThat(lock).isNotEqualTo(lock.forTransaction()).isNotEqualTo(AdvisoryLock.of(7));
        assertThat(AdvisoryLock.of(-1, 5)).isEqualTo(AdvisoryLock.of(-1, 5)).isNotEqualTo(AdvisoryLock.of(0, 5));
        assertThat(AdvisoryLock.of("a")).isEqualTo(AdvisoryLock.of("a")).isNotEqualTo(AdvisoryLock.of("b"));
        assertThat(lock.shared().forTransaction()).hasToString("AdvisoryLock[shared, transaction level]");
    }

    /** The first eight bytes of the well-known digest of the empty text. */
    @Test
    void aTextHasTheSameNumberForEver() {
        assertThat(AdvisoryLock.of("")).isEqualTo(AdvisoryLock.of(0xe3b0c44298fc1c14L));
    }

    @Test
    void anotherDatabaseIsToldApart() {
        assertThatThrownBy(() -> Notifications.of(scopes).listen("prices").blockLast(PATIENCE))
                .isInstanceOf(UnsupportedOperationException.class)
                .hasMessageContaining("r2dbc-postgresql");
    }

    @Test
    void optionsOutOfTheirRangeAreRefused() {
        Notifications notifications = Notifications.of(scopes);
        assertThatThrownBy(() -> notifications.withBuffer(0)).isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> notifications.withHeartbeat(Duration.ofMillis(-1)))
                .isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> notifications.withReconnect(-1, Duration.ofMillis(1), Duration.ofMillis(1)))
                .isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> notifications.withReconnect(1, Duration.ZERO, Duration.ofMillis(1)))
                .isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> notifications.withReconnect(1, Duration.ofMillis(2), Duration.ofMillis(1)))
                .isInstanceOf(IllegalArgumentException.class);
        assertThat(notifications
                        .withBuffer(7)
                        .withFailOnOverflow(true)
                        .withHeartbeat(Duration.ZERO)
                        .withReconnect(3, Duration.ofMillis(4), Duration.ofMillis(5))
                        .toString())
                .contains("buffer=7", "failOnOverflow=true", "attempts=3", "firstPause=PT0.004S", "heartbeat=PT0S");
    }
}
