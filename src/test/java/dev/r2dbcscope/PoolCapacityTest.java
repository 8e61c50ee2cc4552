package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.pool.ConnectionPoolCapacity;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import java.lang.reflect.InvocationTargetException;
import java.net.URL;
import java.net.URLClassLoader;
import java.time.Duration;
import java.util.OptionalInt;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Function;
import java.util.function.Supplier;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Mono;

/** What scopes know of the size of a pool, with r2dbc-pool on the class path and without. */
class PoolCapacityTest {

    private final ScriptedPool seven = new ScriptedPool(7);
    private final ScriptedPool boundless = new ScriptedPool(Integer.MAX_VALUE);

    @AfterEach
    void dispose() {
        seven.close();
        boundless.close();
    }

    @Test
    void isTheMaximumSizeOfAnR2dbcPool() {
        ConnectionPoolCapacity capacity = new ConnectionPoolCapacity();

        assertThat(capacity.mostConnections(seven.pool)).hasValue(7);
        assertThat(capacity.mostConnections(boundless.pool)).isEmpty();
        assertThat(capacity.mostConnections(seven.database)).isEmpty();
    }

    @Test
    void isThatOfTheOutermostPool() {
        Pool pool = Pool.of(ConnectionScopes.of(seven.pool).connectionFactory());

        assertThat(pool.isBounded()).isTrue();
        assertThat(pool.capacity()).isEqualTo(7);
        assertThat(pool).isEqualTo(Pool.of(seven.pool)).hasSameHashCodeAs(Pool.of(seven.pool));
        assertThat(pool).isNotEqualTo(Pool.of(boundless.pool));
    }

    @Test
    void tellsHowManyConnectionsAreOut() {
        ConnectionFactory outermost = ConnectionScopes.of(seven.pool).connectionFactory();
        assertThat(PoolCapacity.inUse(outermost)).hasValue(0);

        Connection connection = seven.borrow();
        assertThat(PoolCapacity.inUse(outermost)).hasValue(1);
        assertThat(new ConnectionPoolCapacity().connectionsInUse(boundless.pool))
                .hasValue(0);

        ScriptedPool.giveBack(connection);
        assertThat(PoolCapacity.inUse(outermost)).hasValue(0);
        assertThat(PoolCapacity.inUse(seven.database)).isEmpty();
    }

    @Test
    void isUnknownOfPoolsThatDoNotTell() {
        PoolCapacity simple = factory -> OptionalInt.of(1);

        assertThat(simple.connectionsInUse(seven.database)).isEmpty();
    }

    @Test
    void isUnknownOfOtherFactories() {
        assertThat(Pool.of(seven.database).isBounded()).isFalse();
        assertThat(Pool.of(seven.database).capacity()).isEqualTo(Integer.MAX_VALUE);
    }

    @Test
    void isUnknownOfAPoolWhoseAnswerIsAnError() {
        IllegalStateException disposed = new IllegalStateException("disposed");
        AtomicBoolean broken = new AtomicBoolean();
        Supplier<OptionalInt> two = () -> {
            if (broken.get()) {
                throw disposed;
            }
            return OptionalInt.of(2);
        };
        ConnectionFactory factory = new ScriptedCapacity.Answering(two, two);
        Pool pool = Pool.of(factory);
        assertThat(pool.capacity()).isEqualTo(2);
        assertThat(pool.inUse()).hasValue(2);

        broken.set(true);
        assertThat(pool.capacity()).isEqualTo(Integer.MAX_VALUE);
        assertThat(pool.inUse()).isEmpty();
        assertThat(Pool.of(factory).isBounded()).isFalse();
    }

    @Test
    void isNotNeeded() throws Exception {
        try (URLClassLoader loader = withoutR2dbcPool()) {
            assertThatThrownBy(() -> loader.loadClass(ConnectionPoolCapacity.class.getName())
                            .getConstructor()
                            .newInstance())
                    .isInstanceOf(InvocationTargetException.class)
                    .hasRootCauseInstanceOf(ClassNotFoundException.class);

            Class<?> type = loader.loadClass(ConnectionScopes.class.getName());
            Object scopes = type.getMethod("of", ConnectionFactory.class).invoke(null, seven.database);
            Function<Connection, Mono<Integer>> work =
                    connection -> Rows.ints(connection, "select 1").next();
            Mono<?> result =
                    (Mono<?>) type.getMethod("inTransaction", Function.class).invoke(scopes, work);

            assertThat(result.block(Duration.ofSeconds(60))).isEqualTo(1);
            assertThat(seven.database.live()).isZero();
        }
    }

    /** Loads the library anew, and everything else but r2dbc-pool as it is. */
    private static URLClassLoader withoutR2dbcPool() {
        URL library =
                ConnectionScopes.class.getProtectionDomain().getCodeSource().getLocation();
        String hidden = ConnectionPool.class.getPackageName();
        String own = ConnectionScopes.class.getPackageName();
        ClassLoader all = PoolCapacityTest.class.getClassLoader();
        ClassLoader others = new ClassLoader(all) {
            @Override
            protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
                if (name.startsWith(hidden) || name.startsWith(own)) {
                    throw new ClassNotFoundException(name);
                }
                return super.loadClass(name, resolve);
            }
        };
        return new URLClassLoader(new URL[] {library}, others);
    }
}
