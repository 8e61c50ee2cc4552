package dev.r2dbcscope;

import java.time.Duration;
import org.jspecify.annotations.Nullable;

/**
 * What one live scope looks like at one moment: an immutable snapshot, taken without stopping the scope.
 *
 * <p>It shows SQL text and never bind values.
 *
 * @param id a number that is unique among the scopes of one {@link ConnectionScopes} and its variants
 * @param name the scope's name, see {@link ScopeOptions#withName(String)}
 * @param origin where the scope was assembled: class, method, file and line
 * @param state what it does at the moment
 * @param transactional whether it is a transaction
 * @param waited how long it waited, or has been waiting, for its connection
 * @param held how long it has held the connection; zero while it waits
 * @param inDatabase how much of that time at least one statement was with the driver
 * @param statements how many statements were started so far
 * @param statementsInFlight how many of them have not ended
 * @param statementsWaiting how many wait at the gate
 * @param rowsBuffered rows read ahead of their subscribers because other statements waited behind them
 * @param statement the SQL text of the oldest statement in flight, or {@code null} if there is none
 */
public record LiveScope(
        long id,
        String name,
        String origin,
        ScopeState state,
        boolean transactional,
        Duration waited,
        Duration held,
        Duration inDatabase,
        long statements,
        int statementsInFlight,
        int statementsWaiting,
        int rowsBuffered,
        @Nullable String statement) {}
