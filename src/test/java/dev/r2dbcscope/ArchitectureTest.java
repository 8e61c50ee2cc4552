package dev.r2dbcscope;

import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.classes;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.fields;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static com.tngtech.archunit.library.dependencies.SlicesRuleDefinition.slices;
import static org.assertj.core.api.Assertions.assertThat;

import com.tngtech.archunit.core.domain.JavaAccess;
import com.tngtech.archunit.core.domain.JavaClass;
import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.domain.JavaModifier;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import com.tngtech.archunit.core.importer.ImportOption;
import com.tngtech.archunit.lang.ArchCondition;
import com.tngtech.archunit.lang.ConditionEvents;
import com.tngtech.archunit.lang.SimpleConditionEvent;
import com.tngtech.archunit.library.dependencies.SliceAssignment;
import com.tngtech.archunit.library.dependencies.SliceIdentifier;
import java.util.Set;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Publisher;

/** The rules of the layout: who may know whom, and what may be seen from outside. */
final class ArchitectureTest {

    private static final String BASE = "dev.r2dbcscope";
    private static final String POSTGRESQL = BASE + ".postgresql";
    private static final String POOL = BASE + ".pool";
    private static final String TESTKIT = BASE + ".testkit";

    private static final Set<String> BLOCKING =
            Set.of("block", "blockOptional", "blockFirst", "blockLast", "toIterable", "toStream");

    /** Full names of the classes of the main code that may wait for a publisher, each with its reason beside it. */
    private static final Set<String> MAY_BLOCK = Set.of();

    private static final JavaClasses MAIN = new ClassFileImporter()
            .withImportOption(ImportOption.Predefined.DO_NOT_INCLUDE_TESTS)
            .importPackages(BASE);

    @Test
    void packagesAreFreeOfCycles() {
        slices().assignedFrom(packages()).should().beFreeOfCycles().check(MAIN);
    }

    @Test
    void aScopesOriginIsLookedForOutsideAllPackages() {
        assertThat(ScopeLabel.PACKAGES)
                .isEqualTo(MAIN.stream().map(JavaClass::getPackageName).collect(Collectors.toSet()));
    }

    @Test
    void basePackageKnowsOnlyReactorAndTheSpi() {
        classes()
                .that()
                .resideInAPackage(BASE)
                .should()
                .onlyDependOnClassesThat()
                .resideInAnyPackage(
                        BASE,
                        "java..",
                        "org.reactivestreams..",
                        "reactor.core..",
                        "reactor.util..",
                        "io.r2dbc.spi..",
                        "org.slf4j..",
                        "org.jspecify..")
                .check(MAIN);
    }

    @Test
    void onlyThePostgresqlPackageKnowsTheDriver() {
        noClasses()
                .that()
                .resideOutsideOfPackage(POSTGRESQL + "..")
                .should()
                .dependOnClassesThat()
                .resideInAnyPackage("io.r2dbc.postgresql..")
                .check(MAIN);
    }

    @Test
    void onlyWhatSpeaksToTheNetworkKnowsNetty() {
        noClasses()
                .that()
                .resideOutsideOfPackages(POSTGRESQL + "..", TESTKIT + "..")
                .should()
                .dependOnClassesThat()
                .resideInAnyPackage("io.netty..", "reactor.netty..")
                .check(MAIN);
    }

    @Test
    void onlyTheTestKitKnowsJUnit() {
        noClasses()
                .that()
                .resideOutsideOfPackage(TESTKIT + "..")
                .should()
                .dependOnClassesThat()
                .resideInAnyPackage("org.junit..")
                .check(MAIN);
    }

    @Test
    void nothingKnowsTheTestKit() {
        noClasses()
                .that()
                .resideOutsideOfPackage(TESTKIT + "..")
                .should()
                .dependOnClassesThat()
                .resideInAPackage(TESTKIT + "..")
                .check(MAIN);
    }

    @Test
    void onlyThePoolPackageKnowsR2dbcPool() {
        noClasses()
                .that()
                .resideOutsideOfPackage(POOL + "..")
                .should()
                .dependOnClassesThat()
                .resideInAnyPackage("io.r2dbc.pool..", "reactor.pool..")
                .check(MAIN);
    }

    @Test
    void nothingBlocks() {
        classes().should(notBlock()).check(MAIN);
    }

    @Test
    void publicClassesAreClosed() {
        classes()
                .that()
                .arePublic()
                .and()
                .areTopLevelClasses()
                .should()
                .haveModifier(JavaModifier.FINAL)
                .orShould()
                .haveModifier(JavaModifier.ABSTRACT)
                .orShould()
                .beInterfaces()
                .orShould()
                .beEnums()
                .orShould()
                .beRecords()
                .check(MAIN);
    }

    @Test
    void publicFieldsAreConstants() {
        fields().that()
                .arePublic()
                .should()
                .beStatic()
                .andShould()
                .beFinal()
                .allowEmptyShould(true)
                .check(MAIN);
    }

    @Test
    void noPackageHidesBehindAVagueName() {
        noClasses()
                .should()
                .resideInAnyPackage("..internal..", "..util..", "..support..", "..impl..")
                .check(MAIN);
    }

    private static SliceAssignment packages() {
        return new SliceAssignment() {
            @Override
            public SliceIdentifier getIdentifierOf(JavaClass javaClass) {
                return SliceIdentifier.of(javaClass.getPackageName());
            }

            @Override
            public String getDescription() {
                return "packages";
            }
        };
    }

    private static ArchCondition<JavaClass> notBlock() {
        return new ArchCondition<>("not wait for a publisher") {
            @Override
            public void check(JavaClass javaClass, ConditionEvents events) {
                if (MAY_BLOCK.contains(javaClass.getName())) {
                    return;
                }
                for (JavaAccess<?> access : javaClass.getAccessesFromSelf()) {
                    if (access.getTargetOwner().isAssignableTo(Publisher.class)
                            && BLOCKING.contains(access.getTarget().getName())) {
                        events.add(SimpleConditionEvent.violated(javaClass, access.getDescription()));
                    }
                }
            }
        };
    }
}
