package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.LeakAssertions;
import dev.r2dbcscope.testkit.LeakExtension;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.springframework.beans.factory.config.BeanPostProcessor;
import org.springframework.beans.factory.support.BeanDefinitionBuilder;
import org.springframework.beans.factory.support.DefaultListableBeanFactory;
import reactor.core.publisher.Mono;

/** The examples of README.md about leaks. {@link ReadmeTest} checks that what is printed there is what runs here. */
class ReadmeTestkitLeaksIT {

    private static final ConnectionPool pool = Postgres.pool(2);

    // example: leaks
    @RegisterExtension
    static final LeakExtension leaks = LeakExtension.of();

    static final ConnectionFactory connections = leaks.watch(pool);
    static final ConnectionScopes scopes = ConnectionScopes.of(connections);

    @Test
    void findsAnOrder() {
        Mono<Integer> found = scopes.withConnection(
                connection -> Rows.ints(connection, "select 1").next());

        assertThat(found.block()).isEqualTo(1);
    } // fails here if anything is still held, or was used after its end
    // end

    // example: leaks in spring
    /** A bean of the tests' configuration. */
    static class LeakWatch implements BeanPostProcessor {

        @Override
        public Object postProcessAfterInitialization(Object bean, String name) {
            return bean instanceof ConnectionFactory factory
                    ? LeakAssertions.shared().watch(factory)
                    : bean;
        }
    }

    @ExtendWith(LeakExtension.class)
    static class OrderApplicationTest {
        // ...
    }
    // end

    @Test
    @ExtendWith(LeakExtension.class)
    void theBeansOfAnApplicationAreWatched() {
        DefaultListableBeanFactory application = new DefaultListableBeanFactory();
        application.addBeanPostProcessor(new LeakWatch());
        application.registerBeanDefinition(
                "connections",
                BeanDefinitionBuilder.genericBeanDefinition(ConnectionFactory.class, () -> pool)
                        .setDestroyMethodName(null)
                        .getBeanDefinition());
        ConnectionFactory bean = application.getBean(ConnectionFactory.class);

        assertThat(ConnectionScopes.of(bean)
                        .withConnection(
                                connection -> Rows.ints(connection, "select 1").next())
                        .block())
                .isEqualTo(1);
        Connection taken =
                Mono.<Connection>fromDirect(bean.create()).blockOptional().orElseThrow();
        assertThat(LeakAssertions.shared().held())
                .singleElement()
                .asString()
                .contains("connection taken at " + getClass().getName() + ".theBeansOfAnApplicationAreWatched(");
        Mono.from(taken.close()).block();
    }

    @AfterAll
    static void dispose() {
        pool.disposeLater().block();
    }
}
