package dev.r2dbcscope;

import io.r2dbc.spi.R2dbcException;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * What may be shown of an error where nobody asked for it: in a log, in the text of an event. A database quotes values in its
 * messages, so of what it says only the SQLSTATE is shown.
 */
final class ErrorText {

    private ErrorText() {}

    /** An error in words that hold no values. */
    static String of(@Nullable Throwable error) {
        if (error == null || error instanceof ScopeException) {
            return String.valueOf(error);
        }
        String type = error.getClass().getName();
        return error instanceof R2dbcException known ? type + " [" + known.getSqlState() + "]" : type;
    }

    /** The error itself for a log, unless it or what led to it may quote values: then nothing. */
    static @Nullable Throwable forLog(Throwable error) {
        return mayQuoteValues(error, Collections.newSetFromMap(new IdentityHashMap<>())) ? null : error;
    }

    /** Errors about data, keys and conditions quote them, and what functions raise may say anything. */
    private static boolean mayQuoteValues(@Nullable Throwable error, Set<Throwable> seen) {
        if (error == null || !seen.add(error)) {
            return false;
        }
        if (error instanceof R2dbcException known && isAboutValues(known)) {
            return true;
        }
        for (Throwable suppressed : error.getSuppressed()) {
            if (mayQuoteValues(suppressed, seen)) {
                return true;
            }
        }
        return mayQuoteValues(error.getCause(), seen);
    }

    private static boolean isAboutValues(R2dbcException error) {
        String state = error.getSqlState();
        if (state == null || state.length() != 5) {
            return false; // the driver's own, or this library's
        }
        return switch (state.substring(0, 2)) {
            case "08", "25", "40", "53", "55", "57", "58" -> false;
            default -> true;
        };
    }
}
