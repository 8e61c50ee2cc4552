package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import org.assertj.core.api.Assertions;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Mono;

/** How a scope is called, and where it says that it comes from. */
class ScopeLabelTest {

    private static final String HERE = "ScopeLabelTest.java:";

    @Test
    void isNamedAfterTheMethodThatAssemblesIt() {
        ScopeLabel label = ScopeLabel.here(null);
        assertThat(label.name()).isEqualTo("ScopeLabelTest.isNamedAfterTheMethodThatAssemblesIt");
        assertThat(label.origin())
                .startsWith(ScopeLabelTest.class.getName())
                .contains(".isNamedAfterTheMethodThatAssemblesIt(" + HERE);
        assertThat(label).hasToString("scope '" + label.name() + "' assembled at " + label.origin());
    }

    @Test
    void hasTheNameThatItWasGivenAndStillTellsWhereItIsFrom() {
        ScopeLabel label = ScopeLabel.here("orders");
        assertThat(label.name()).isEqualTo("orders");
        assertThat(label.origin()).contains(HERE);
    }

    @Test
    void isWhoeverSubscribesToThePipelineThatAssemblesIt() {
        ScopeLabel label = Mono.just("orders").map(ScopeLabel::here).block(Duration.ofMinutes(1));
        assertThat(label).isNotNull().satisfies(it -> assertThat(it.origin()).contains(HERE));
    }

    @Test
    void isUnknownOnAThreadOnWhichNobodyElseHasAPart() {
        ScopeLabel label = CompletableFuture.<String>supplyAsync(() -> null)
                .thenApplyAsync(ScopeLabel::here)
                .join();
        assertThat(label).hasToString("scope 'unnamed' assembled at unknown");
    }

    @Test
    void takesReactorTheJdkAndThisLibraryForNobody() {
        assertThat(ScopeLabel.isInternal(Mono.class)).isTrue();
        assertThat(ScopeLabel.isInternal(CompletableFuture.class)).isTrue();
        assertThat(ScopeLabel.isInternal(ConnectionScopes.class)).isTrue();
    }

    @Test
    void takesApplicationsAndOtherLibrariesForSomebody() {
        assertThat(ScopeLabel.isInternal(Assertions.class)).isFalse();
        assertThat(ScopeLabel.isInternal(ScopeLabelTest.class))
                .as("what shares the package only")
                .isFalse();
    }
}
