package dev.r2dbcscope.etl;

import dev.r2dbcscope.CommitOutcomeUnknownException;
import dev.r2dbcscope.ScopeAcquisitionException;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import io.r2dbc.spi.R2dbcTransientException;
import java.io.IOException;
import java.util.Set;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;

/**
 * Which errors may be gone the next time: the database rolled the transaction back to solve a conflict (class 40), or there is
 * no connection to it now (class 08, what a server says that is going down or starting up, or has too many).
 *
 * @see <a href="https://www.postgresql.org/docs/current/errcodes-appendix.html">PostgreSQL Error Codes</a>
 */
final class TransientErrors {

    private static final int LONGEST_CHAIN = 16;

    /** Admin shutdown, crash shutdown, cannot connect now, idle session timeout; too many connections. */
    private static final Set<String> STATES = Set.of("57P01", "57P02", "57P03", "57P05", "53300");

    private static final String COMPLETION_UNKNOWN = "40003";

    private TransientErrors() {}

    /** What was surely not committed, and may be the next time. */
    static boolean isTransient(Throwable error) {
        return !isUnknown(error) && anyOf(error, TransientErrors::isOne);
    }

    /** What the database rolled back to solve a conflict; its connection is good. */
    static boolean isConflict(Throwable error) {
        return !isUnknown(error) && anyOf(error, TransientErrors::isOfClass40);
    }

    /** What may have been committed. */
    static boolean isUnknown(Throwable error) {
        return anyOf(
                error,
                link -> link instanceof CommitOutcomeUnknownException || COMPLETION_UNKNOWN.equals(sqlState(link)));
    }

    private static boolean anyOf(Throwable error, Predicate<Throwable> one) {
        Throwable link = error;
        for (int i = 0; i < LONGEST_CHAIN && link != null; i++) {
            if (one.test(link)) {
                return true;
            }
            link = link.getCause();
        }
        return false;
    }

    private static boolean isOfClass40(Throwable link) {
        String state = sqlState(link);
        return state != null && state.startsWith("40");
    }

    private static boolean isOne(Throwable link) {
        String state = sqlState(link);
        return link instanceof IOException
                || link instanceof ScopeAcquisitionException
                || link instanceof R2dbcTransientException
                || state == null && link instanceof R2dbcNonTransientResourceException // such as a pool's validation
                || isOfClass40(link)
                || state != null && (state.startsWith("08") || STATES.contains(state));
    }

    private static @Nullable String sqlState(Throwable error) {
        return error instanceof R2dbcException known ? known.getSqlState() : null;
    }
}
