package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import dev.r2dbcscope.testkit.RollbackSandbox;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.util.context.Context;
import reactor.util.context.ContextView;

/** A connection that takes turns with others on one of the driver's, and what scopes ask of it instead of the driver. */
class SharedConnectionTest {

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final RollbackSandbox sandbox = RollbackSandbox.of(database);
    private final ConnectionScopes scopes = ConnectionScopes.of(sandbox);
    private final ConnectionScopes elsewhere =
            witness.watch(ConnectionScopes.of(witness.watch(ProbeConnectionFactory.of())));

    @BeforeEach
    void begin() {
        sandbox.begin().block(FormContract.PATIENCE);
    }

    @AfterEach
    void rollback() {
        sandbox.rollback().block(FormContract.PATIENCE);
    }

    private static SharedConnection shared(Connection connection) {
        return Objects.requireNonNull(SharedConnection.in(connection));
    }

    @Test
    void workWithTheDriversOwnConnectionIsDoneOnTheOneThatIsShared() {
        List<Connection> seen = scopes.inTransactionMany(c -> Flux.concat(
                        Mono.fromSupplier(() -> shared(c).shared()),
                        DriverTurn.take(c, "COPY t", turn -> Mono.just(turn.connection()))))
                .collectList()
                .block(FormContract.PATIENCE);
        assertThat(seen).hasSize(2).doesNotContainNull();
        assertThat(seen.get(1)).isSameAs(seen.get(0)).isNotInstanceOf(SharedConnection.class);
    }

    @Test
    void aConnectionOfTheDriverIsNone() {
        assertThat(elsewhere
                        .withConnection(c -> Mono.just(SharedConnection.in(c) == null))
                        .block(FormContract.PATIENCE))
                .isTrue();
    }

    @Nested
    class IsHeld {

        private Mono<Boolean> isHeld(SharedConnection shared) {
            return Mono.deferContextual(context -> Mono.just(shared.isHeldAround(context)));
        }

        @Test
        void aroundThePipelineOfItsScopeAndOfThoseInside() {
            assertThat(scopes.withConnectionMany(c -> Flux.concat(
                                    isHeld(shared(c)),
                                    scopes.inTransaction(t -> isHeld(shared(c))),
                                    elsewhere.withConnection(d -> isHeld(shared(c)))))
                            .collectList()
                            .block(FormContract.PATIENCE))
                    .containsExactly(true, true, true);
        }

        @Test
        void aroundNothingElse() {
            ContextView apart = Context.empty();
            assertThat(scopes.withConnectionMany(c -> Flux.concat(
                                    isHeld(shared(c)).contextWrite(all -> Context.of(apart)),
                                    elsewhere
                                            .withConnection(d -> isHeld(shared(c)))
                                            .contextWrite(all -> Context.of(apart))))
                            .collectList()
                            .block(FormContract.PATIENCE))
                    .containsExactly(false, false);
        }

        @Test
        void notByAScopeThatHasNoConnectionYet() {
            assertThat(scopes.withConnection(
                                    c -> elsewhere.connected(isHeld(shared(c))).contextWrite(all -> Context.empty()))
                            .block(FormContract.PATIENCE))
                    .isFalse();
        }
    }

    @Nested
    class ItsDialect {

        private final Dialect dialect = new SharedDialect(new Dialect() {

            @Override
            public boolean supports(Connection connection) {
                return true;
            }

            @Override
            public Map<String, String> timeoutSettings(Duration statementTimeout, Duration lockWaitTimeout) {
                return Map.of("statement", statementTimeout.toString(), "lock", lockWaitTimeout.toString());
            }

            @Override
            public Publisher<Void> resetTimeouts(Connection connection) {
                return Mono.<Void>empty().doOnSubscribe(s -> reset = connection);
            }

            @Override
            public boolean endsConnection(R2dbcException error) {
                return "X0001".equals(error.getSqlState());
            }
        });

        private @Nullable Connection reset;

        private R2dbcException error(String sqlState) {
            return new R2dbcNonTransientResourceException("text", sqlState);
        }

        @Test
        void isThatOfTheConnectionThatIsShared() {
            scopes.withConnection(c -> {
                        assertThat(Dialect.of(c)).isInstanceOf(SharedDialect.class);
                        assertThat(dialect.supports(c)).isTrue();
                        assertThat(dialect.supports(shared(c).shared())).isFalse();
                        return Mono.from(Objects.requireNonNull(dialect.resetTimeouts(c)))
                                .then(Mono.fromRunnable(() -> assertThat(reset).isSameAs(c)));
                    })
                    .block(FormContract.PATIENCE);
            assertThat(dialect.timeoutSettings(Duration.ofSeconds(1), Duration.ofSeconds(2)))
                    .isEqualTo(Map.of("statement", "PT1S", "lock", "PT2S"));
            assertThat(dialect.endsConnection(error("X0001"))).isTrue();
            assertThat(dialect.endsConnection(error("08006"))).isFalse();
        }

        @Test
        void asksOnlyASharedConnectionToCancelWhatRuns() {
            elsewhere
                    .withConnection(c -> {
                        assertThatThrownBy(() -> dialect.cancelRunning(c))
                                .isInstanceOf(IllegalArgumentException.class)
                                .hasMessageContaining("Not a shared connection");
                        return Mono.empty();
                    })
                    .block(FormContract.PATIENCE);
        }
    }
}
