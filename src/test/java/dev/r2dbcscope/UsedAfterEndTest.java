package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import dev.r2dbcscope.ScopeEvent.UsedAfterEnd;
import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryMetadata;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.Statement;
import io.r2dbc.spi.ValidationDepth;
import io.r2dbc.spi.Wrapped;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.reactivestreams.Publisher;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.util.context.Context;
import reactor.util.context.ContextView;

/** What listeners hear of code that uses a scope's handles after its end. */
class UsedAfterEndTest {

    @RegisterExtension
    final Witness witness = new Witness();

    private final List<UsedAfterEnd> uses = new CopyOnWriteArrayList<>();
    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final ConnectionScopes scopes = ConnectionScopes.of(database)
            .with(ScopeOptions.defaults().withName("orders").withListener(event -> {
                if (event instanceof UsedAfterEnd use) {
                    uses.add(use);
                }
            }));

    /** A handle that has escaped from a scope that completed. */
    private Connection escaped() {
        return scopes.withConnection(Mono::just).blockOptional().orElseThrow();
    }

    private void assertTold(String call, Throwable error) {
        assertThat(uses).singleElement().satisfies(use -> {
            assertThat(use.call()).isEqualTo(call);
            assertThat(use.error()).isSameAs(error);
            assertThat(use.scope().name()).isEqualTo("orders");
            assertThat(use.scope().state()).isEqualTo(ScopeState.EXITING);
        });
    }

    private static Throwable failure(Publisher<?> publisher) {
        List<Throwable> errors = new ArrayList<>();
        Flux.from(publisher).subscribe(null, errors::add);
        assertThat(errors).hasSize(1);
        return errors.get(0);
    }

    @Test
    void isToldWhenAStatementIsCreated() {
        Connection connection = escaped();

        ScopeClosedException error =
                catchThrowableOfType(ScopeClosedException.class, () -> connection.createStatement("select 1"));

        assertTold("select 1", error);
    }

    @Test
    void isToldWhenABatchIsCreated() {
        Connection connection = escaped();

        ScopeClosedException error = catchThrowableOfType(ScopeClosedException.class, connection::createBatch);

        assertTold("a batch", error);
    }

    @Test
    void isToldWhenAStatementThatWasCreatedInTimeIsExecuted() {
        Statement statement = scopes.withConnection(connection -> Mono.just(connection.createStatement("select 1")))
                .blockOptional()
                .orElseThrow();

        ScopeClosedException error = catchThrowableOfType(ScopeClosedException.class, statement::execute);

        assertTold("select 1", error);
    }

    @Test
    void isToldWhenAnExecutionThatWasMadeInTimeIsSubscribedTo() {
        Publisher<?> execution = scopes.<Publisher<?>>withConnection(connection ->
                        Mono.just(connection.createStatement("select 1").execute()))
                .blockOptional()
                .orElseThrow();

        assertTold("select 1", failure(execution));
    }

    @Test
    void isToldWhenAPagedQueryIsSubscribedTo() {
        database.knowingCursors();
        Publisher<?> execution = scopes.<Publisher<?>>inTransaction(connection -> Mono.just(
                        connection.createStatement("query 1").fetchSize(2).execute()))
                .blockOptional()
                .orElseThrow();

        assertTold("query 1", failure(execution));
    }

    @Test
    void isToldOfAScopeThatOutlivesTheOneWhoseConnectionItHas() {
        AtomicReference<Connection> joined = new AtomicReference<>();
        AtomicReference<Publisher<?>> execution = new AtomicReference<>();
        scopes.withConnection(outer -> Mono.deferContextual(context -> {
                    scopes.withConnection(inner -> {
                                joined.set(inner);
                                execution.set(inner.createStatement("select 1").execute());
                                return Mono.never();
                            })
                            .contextWrite(context)
                            .subscribe();
                    return Mono.empty();
                }))
                .block();

        ScopeClosedException error = catchThrowableOfType(
                ScopeClosedException.class, () -> joined.get().createStatement("select 2"));

        assertTold("select 2", error);
        uses.clear();
        assertTold("select 1", failure(execution.get()));
    }

    static List<Function<Connection, Publisher<?>>> requests() {
        return List.of(
                Connection::beginTransaction,
                Connection::commitTransaction,
                Connection::rollbackTransaction,
                connection -> connection.createSavepoint("s"),
                connection -> connection.releaseSavepoint("s"),
                connection -> connection.rollbackTransactionToSavepoint("s"),
                connection -> connection.setAutoCommit(false),
                connection -> connection.setTransactionIsolationLevel(IsolationLevel.SERIALIZABLE),
                connection -> connection.setLockWaitTimeout(Duration.ofSeconds(1)),
                connection -> connection.setStatementTimeout(Duration.ofSeconds(1)));
    }

    @ParameterizedTest
    @MethodSource("requests")
    void isToldOnceOfARequestToTheConnection(Function<Connection, Publisher<?>> request) {
        Throwable error = failure(request.apply(escaped()));

        assertThat(error).isInstanceOf(ScopeClosedException.class);
        assertThat(uses).extracting(UsedAfterEnd::error).containsExactly((ScopeClosedException) error);
    }

    @Test
    void isToldOfATransactionalHandleToo() {
        Connection connection = scopes.inTransaction(Mono::just).blockOptional().orElseThrow();

        assertTold("COMMIT", failure(connection.commitTransaction()));
    }

    @Test
    void isToldForEachUse() {
        Connection connection = escaped();

        assertThatThrownBy(() -> connection.createStatement("select 1")).isInstanceOf(ScopeClosedException.class);
        assertThatThrownBy(() -> connection.createStatement("select 2")).isInstanceOf(ScopeClosedException.class);

        assertThat(uses).extracting(UsedAfterEnd::call).containsExactly("select 1", "select 2");
    }

    @Test
    void isToldOfAJoinedScopesHandleWhileTheOuterScopeGoesOn() {
        ConnectionScopes inner = scopes.with(scopes.options().withName("lines"));

        scopes.withConnection(outer -> inner.withConnection(Mono::just).flatMap(handle -> {
                    ScopeClosedException error =
                            catchThrowableOfType(ScopeClosedException.class, () -> handle.createStatement("select 1"));
                    assertThat(error.scopeName()).isEqualTo("lines");
                    return Rows.ints(outer, "select 2").next();
                }))
                .block();

        assertThat(uses).singleElement().satisfies(use -> {
            assertThat(use.error().scopeName()).isEqualTo("lines");
            assertThat(use.scope().name()).isEqualTo("orders");
        });
    }

    @Test
    void isNotToldOfWhatLeadsToNoDatabase() {
        Connection connection = escaped();

        assertThatThrownBy(connection::isAutoCommit).isInstanceOf(ScopeClosedException.class);
        assertThatThrownBy(connection::getMetadata).isInstanceOf(ScopeClosedException.class);
        assertThatThrownBy(((Wrapped<?>) connection)::unwrap).isInstanceOf(ScopeClosedException.class);
        assertThat(Mono.from(connection.validate(ValidationDepth.REMOTE)).block())
                .isFalse();
        Mono.from(connection.close()).block();

        assertThat(uses).isEmpty();
    }

    /** What a scope was cut off in, kept for a moment later. */
    private record CutOff(Connection connection, Publisher<?> execution, ContextView context) {}

    private CutOff cutOff(Function<Flux<Object>, Disposable> ending, Mono<Object> rest) {
        AtomicReference<CutOff> seen = new AtomicReference<>();
        ending.apply(scopes.withConnectionMany(connection -> Flux.deferContextual(context -> {
                    seen.set(new CutOff(
                            connection, connection.createStatement("select 1").execute(), context));
                    return rest;
                })))
                .dispose();
        return java.util.Objects.requireNonNull(seen.get());
    }

    @Test
    void isNotToldOfThePipelineThatWasCutOff() {
        CutOff cancelled = cutOff(Flux::subscribe, Mono.never());
        CutOff failed = cutOff(scope -> scope.subscribe(null, e -> {}), Mono.error(new IllegalStateException()));

        for (CutOff late : List.of(cancelled, failed)) {
            assertThatThrownBy(() -> late.connection().createStatement("select 2"))
                    .isInstanceOf(ScopeClosedException.class);
            assertThat(failure(Flux.from(late.execution()).contextWrite(late.context())))
                    .isInstanceOf(ScopeClosedException.class);
            assertThat(failure(Mono.from(late.connection().beginTransaction()).contextWrite(late.context())))
                    .isInstanceOf(ScopeClosedException.class);
        }

        assertThat(uses).isEmpty();
    }

    @Test
    void isToldOfOthersWhoSubscribeAfterACancel() {
        CutOff cancelled = cutOff(Flux::subscribe, Mono.never());

        assertTold("select 1", failure(cancelled.execution()));
    }

    @Test
    void isNotToldWhereTheConnectionCouldNotBeOpened() {
        ProbeConnectionFactory broken =
                ProbeConnectionFactory.of().on("create", () -> Mono.error(new IllegalStateException("no database")));
        ConnectionScopes none = ConnectionScopes.of(broken).with(scopes.options());

        Mono<Connection> wanted = Mono.from(none.connectionFactory().create());
        none.connected(wanted.onErrorResume(e -> wanted).onErrorResume(e -> Mono.empty()))
                .block();

        assertThat(uses).isEmpty();
    }

    @Test
    void isToldOnTheThreadAndInTheMiddleOfTheCodeThatDoesIt() {
        List<StackTraceElement> stack = new ArrayList<>();
        ConnectionScopes listened = scopes.with(ScopeOptions.defaults().withListener(event -> {
            if (event instanceof UsedAfterEnd) {
                stack.addAll(List.of(Thread.currentThread().getStackTrace()));
            }
        }));
        Connection connection =
                listened.withConnection(Mono::just).blockOptional().orElseThrow();

        assertThatThrownBy(() -> connection.createStatement("select 1")).isInstanceOf(ScopeClosedException.class);

        assertThat(stack)
                .extracting(StackTraceElement::getMethodName)
                .contains("isToldOnTheThreadAndInTheMiddleOfTheCodeThatDoesIt");
    }

    // factories that listen, and that want to know for whom ----------------------------------------------------------

    /** A proxy of a factory that hears of the scopes on it. */
    private static final class Listening implements ConnectionFactory, Wrapped<ConnectionFactory>, ScopeListener {

        private final ConnectionFactory factory;
        private final List<String> heard;
        private final List<CurrentScope> asked = new CopyOnWriteArrayList<>();

        Listening(ConnectionFactory factory, List<String> heard) {
            this.factory = factory;
            this.heard = heard;
        }

        @Override
        public Mono<Connection> create() {
            return Mono.deferContextual(context -> {
                CurrentScope scope = CurrentScope.acquiring(context);
                if (scope != null) {
                    asked.add(scope);
                }
                return Mono.fromDirect(factory.create());
            });
        }

        @Override
        public ConnectionFactoryMetadata getMetadata() {
            return factory.getMetadata();
        }

        @Override
        public ConnectionFactory unwrap() {
            return factory;
        }

        @Override
        public void onEvent(ScopeEvent event) {
            heard.add("factory " + event.getClass().getSimpleName());
        }
    }

    /** A proxy that knows nothing of scopes. */
    private record Plain(ConnectionFactory factory) implements ConnectionFactory, Wrapped<ConnectionFactory> {

        @Override
        public Publisher<? extends Connection> create() {
            return factory.create();
        }

        @Override
        public ConnectionFactoryMetadata getMetadata() {
            return factory.getMetadata();
        }

        @Override
        public ConnectionFactory unwrap() {
            return factory;
        }
    }

    @Test
    void aFactoryThatIsAListenerHearsOfItsScopesBeforeTheirOwnListeners() {
        List<String> heard = new CopyOnWriteArrayList<>();
        ConnectionScopes listened = ConnectionScopes.of(new Plain(new Listening(database, heard)))
                .with(ScopeOptions.defaults()
                        .withListener(
                                event -> heard.add("options " + event.getClass().getSimpleName())));

        listened.withConnection(connection -> Mono.empty()).block();

        assertThat(heard)
                .containsExactly(
                        "factory Waiting",
                        "options Waiting",
                        "factory Opened",
                        "options Opened",
                        "factory Exiting",
                        "options Exiting",
                        "factory Released",
                        "options Released");
    }

    @Test
    void aFactoryCanSeeWhichScopeAsksForAConnection() {
        Listening factory = new Listening(database, new ArrayList<>());
        ConnectionScopes listened =
                ConnectionScopes.of(factory).with(ScopeOptions.defaults().withName("orders"));

        Long id = listened.withConnection(connection -> CurrentScope.get()
                        .doOnNext(scope -> assertThat(scope.snapshot().state()).isEqualTo(ScopeState.IDLE))
                        .map(scope -> scope.snapshot().id()))
                .block();
        Mono.usingWhen(factory.create(), connection -> Mono.empty(), Connection::close)
                .block();

        assertThat(factory.asked).singleElement().satisfies(scope -> {
            assertThat(scope.name()).isEqualTo("orders");
            assertThat(scope.snapshot().id()).isEqualTo(id);
            assertThat(scope.snapshot().state()).isEqualTo(ScopeState.EXITING);
        });
        assertThat(CurrentScope.acquiring(Context.empty())).isNull();
    }
}
