package dev.r2dbcscope.issues;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** Which issues of others are held against the scopes. */
class IssuesTest {

    private static final List<Class<?>> TESTS = List.of(
            ReactorCoreIssuesTest.class,
            R2dbcPoolCancelIssuesIT.class,
            R2dbcPoolLimitIssuesIT.class,
            SpringFrameworkIssuesIT.class,
            SpringFrameworkIssuesTest.class,
            R2dbcPostgresqlIssuesIT.class,
            JooqIssuesIT.class);

    @Test
    void eachHasATestOfItsOwn() {
        Stream<String> issues = TESTS.stream()
                .flatMap(test -> Arrays.stream(test.getDeclaredMethods()))
                .flatMap(method -> Arrays.stream(method.getAnnotationsByType(Tag.class)))
                .map(Tag::value)
                .distinct();

        assertThat(issues)
                .containsExactlyInAnyOrder(
                        "reactor-core#2836",
                        "reactor-core#3695",
                        "r2dbc-pool#140",
                        "r2dbc-pool#143",
                        "r2dbc-pool#144",
                        "r2dbc-pool#165",
                        "r2dbc-pool#198",
                        "r2dbc-pool#211",
                        "r2dbc-pool#213",
                        "r2dbc-pool#221",
                        "spring-framework#23304",
                        "spring-framework#25091",
                        "spring-framework#26591",
                        "spring-framework#32115",
                        "spring-framework#36344",
                        "spring-framework#37274",
                        "r2dbc-postgresql#652",
                        "r2dbc-postgresql#661",
                        "spring-data-r2dbc#194",
                        "jOOQ#13669",
                        "jOOQ#17094");
    }
}
