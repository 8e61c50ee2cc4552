package dev.r2dbcscope;

import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.function.Function;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import reactor.core.Exceptions;
import reactor.util.context.ContextView;

/**
 * What the database keeps for each connection, set for the length of a scope: a role, a search path, a tenant for row-level
 * security. Immutable and thread-safe: every {@code with} method returns a copy.
 *
 * <p><em>Lifetime:</em> a transaction sets them for itself alone, together with its BEGIN and without a round trip of their
 * own. A plain scope sets them on its connection before its pipeline starts, remembers the former values, and sets those
 * back before the connection is released; if that fails, the connection is destroyed. Either way the next borrower does not
 * meet them.
 *
 * <p><em>Joining:</em> a scope joins another one, or is a savepoint in it, only if that one runs under the same values for
 * all of its keys; otherwise it fails with {@link ScopePropagationException}. A transaction that begins inside a plain scope
 * sets its own, and the plain scope has its values back afterwards.
 *
 * <p>Values are bound, never made part of SQL text unless {@link #withValuesInSql} says so, and never shown by what a scope itself says in a message, a log or an
 * event; keys are. The database's own error, which is the cause of a {@link SessionSettingException}, may quote one. Fails with
 * {@link SessionSettingException} when a value cannot be found in the Context, when the database refuses one, or when it is a
 * database whose {@link Dialect} knows no session settings. On PostgreSQL they are its configuration parameters; one of the
 * application's own needs a dot in its key, and reads as an empty string where it was set before and is not now.
 *
 * <pre>{@code
 * SessionSettings perTenant = SessionSettings.none()
 *         .fromContext("app.tenant", context -> context.getOrDefault("tenant", null))
 *         .withRole("web");
 * ConnectionScopes tenants = scopes.with(ScopeOptions.defaults().withSettings(perTenant));
 * }</pre>
 *
 * @see ScopeOptions#withSettings(SessionSettings)
 */
public final class SessionSettings {

    private static final Pattern KEY = Pattern.compile("[A-Za-z_][A-Za-z0-9_]*(\\.[A-Za-z_][A-Za-z0-9_]*)*");

    private static final SessionSettings NONE = new SessionSettings(Map.of(), false);

    private final Map<String, Function<? super ContextView, @Nullable String>> values;
    private final boolean inSql;

    private SessionSettings(Map<String, Function<? super ContextView, @Nullable String>> values, boolean inSql) {
        this.values = values;
        this.inSql = inSql;
    }

    /**
     * Returns no settings.
     *
     * @return no settings
     */
    public static SessionSettings none() {
        return NONE;
    }

    /**
     * Sets a key to a value.
     *
     * @param key letters, digits, underscores and dots; upper and lower case are the same
     * @param value the value
     * @return a copy that sets it too, or instead of what the key was set to before
     * @throws IllegalArgumentException if the key has another form
     */
    public SessionSettings with(String key, String value) {
        Objects.requireNonNull(value, "value");
        return set(key, context -> value);
    }

    /**
     * Sets a key to a value that each scope finds in its Reactor Context when it is subscribed to, before it asks for a
     * connection. If the function returns {@code null} or throws, the scope fails with {@link SessionSettingException}:
     * running without a tenant is worse than not running.
     *
     * @param key letters, digits, underscores and dots; upper and lower case are the same
     * @param value finds the value; must not block
     * @return a copy that sets it too, or instead of what the key was set to before
     * @throws IllegalArgumentException if the key has another form
     */
    public SessionSettings fromContext(String key, Function<? super ContextView, @Nullable String> value) {
        Objects.requireNonNull(value, "value");
        return set(key, value);
    }

    /**
     * Sets the role with whose privileges statements run, as {@code SET ROLE} does. It is set after all other settings and
     * taken back before them, so that it need not have the privileges for those.
     *
     * @param role the name of the role, exactly as the database knows it, without quotes
     * @return a copy that sets it
     * @throws IllegalArgumentException if the name is blank
     */
    public SessionSettings withRole(String role) {
        return with("role", notBlank(role, "role"));
    }

    /**
     * Sets the schemas in which the database looks for names without one.
     *
     * @param schemas the names of the schemas, exactly as the database knows them, without quotes; at least one
     * @return a copy that sets them
     * @throws IllegalArgumentException if there is none, or the name of one is blank
     */
    public SessionSettings withSearchPath(String... schemas) {
        if (Objects.requireNonNull(schemas, "schemas").length == 0) {
            throw new IllegalArgumentException("schemas must not be empty");
        }
        return with(
                "search_path",
                Stream.of(schemas)
                        .map(schema -> '"' + notBlank(schema, "schema").replace("\"", "\"\"") + '"')
                        .collect(Collectors.joining(", ")));
    }

    /**
     * Sets the name under which the database shows the connection to administrators.
     *
     * @param name the name
     * @return a copy that sets it
     */
    public SessionSettings withApplicationName(String name) {
        return with("application_name", Objects.requireNonNull(name, "name"));
    }

    /**
     * Lets the values be constants in the text of BEGIN instead of bound parameters, so that the first statement of a transaction
     * can be sent right behind it, see {@link ScopeOptions#withPipelinedBegin}: that is a round trip less. They are quoted, so
     * none becomes SQL; but whoever may see what others run, in {@code pg_stat_activity} and in the log of the server, sees
     * them. So this is for values that are no secrets.
     *
     * @return a copy with the same values, in which they are; by default they are bound
     */
    public SessionSettings withValuesInSql() {
        return new SessionSettings(values, true);
    }

    private SessionSettings set(String key, Function<? super ContextView, @Nullable String> value) {
        if (!KEY.matcher(Objects.requireNonNull(key, "key")).matches()) {
            throw new IllegalArgumentException(
                    "key must consist of letters, digits, underscores and dots: \"" + key + "\"");
        }
        Map<String, Function<? super ContextView, @Nullable String>> more = new LinkedHashMap<>(values);
        more.put(key.toLowerCase(Locale.ROOT), value);
        return new SessionSettings(more, inSql);
    }

    private static String notBlank(String name, String parameter) {
        if (Objects.requireNonNull(name, parameter).isBlank()) {
            throw new IllegalArgumentException(parameter + " must not be blank");
        }
        return name;
    }

    boolean isEmpty() {
        return values.isEmpty();
    }

    /** Whether they may be part of a statement's text. */
    boolean mayBeInSql() {
        return inSql || values.isEmpty();
    }

    /** Finds the values for one scope; throws {@link SessionSettingException} if one cannot be found. */
    Map<String, String> resolve(ContextView context, ScopeLabel label) {
        if (values.isEmpty()) {
            return Map.of();
        }
        Map<String, String> resolved = new LinkedHashMap<>();
        values.forEach((key, value) -> resolved.put(key, resolve(key, value, context, label)));
        return resolved;
    }

    private static String resolve(
            String key, Function<? super ContextView, @Nullable String> value, ContextView context, ScopeLabel label) {
        String found;
        try {
            found = value.apply(context);
        } catch (Throwable e) {
            Exceptions.throwIfFatal(e);
            throw SessionSettingException.unresolved(
                    key, "failed with " + e.getClass().getName(), label, e);
        }
        if (found == null) {
            throw SessionSettingException.unresolved(key, "returned null", label, null);
        }
        return found;
    }

    /** Shows the keys only: values may be secrets. */
    @Override
    public String toString() {
        return "SessionSettings" + values.keySet();
    }
}
