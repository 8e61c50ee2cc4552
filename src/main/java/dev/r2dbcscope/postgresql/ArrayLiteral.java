package dev.r2dbcscope.postgresql;

import java.lang.reflect.Array;
import java.util.Collection;
import java.util.Iterator;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/**
 * The values of one column of a batch, as the text of a PostgreSQL array.
 *
 * <p>The driver sends arrays as text, too; written here, every type that has a text form can be an element, and no value
 * depends on which array codecs a driver has. An element that is an array itself becomes the text of one, because {@code
 * unnest} would take an array of arrays apart down to its last elements.
 */
final class ArrayLiteral {

    private final StringBuilder out = new StringBuilder().append('{');
    private final StringBuilder element = new StringBuilder();
    private int count;

    int length() {
        return out.length();
    }

    /** Appends the value as the next element. If that fails, nothing was appended. */
    void add(@Nullable Object value) {
        int before = out.length();
        try {
            append(value);
        } catch (RuntimeException e) {
            out.setLength(before);
            throw e;
        }
        count++;
    }

    private void append(@Nullable Object value) {
        if (count > 0) {
            out.append(',');
        }
        if (value == null) {
            out.append("NULL");
        } else if (TextForm.isPlain(value)) {
            TextForm.append(out, value);
        } else if (value instanceof CharSequence text) {
            quote(text);
        } else {
            element.setLength(0);
            Iterator<?> elements = elements(value);
            if (elements == null) {
                TextForm.append(element, value);
            } else {
                element.append(nested(elements));
            }
            quote(element);
        }
    }

    private static @Nullable Iterator<?> elements(Object value) {
        if (value instanceof Collection<?> collection) {
            return collection.iterator();
        }
        if (value.getClass().isArray() && !(value instanceof byte[])) {
            return IntStream.range(0, Array.getLength(value))
                    .mapToObj(i -> Array.get(value, i))
                    .iterator();
        }
        return null;
    }

    private static StringBuilder nested(Iterator<?> elements) {
        ArrayLiteral inner = new ArrayLiteral();
        while (elements.hasNext()) {
            inner.addNested(elements.next());
        }
        return inner.out.append('}');
    }

    /** Arrays inside an array are further dimensions of it. */
    private void addNested(@Nullable Object value) {
        Iterator<?> elements = value == null ? null : elements(value);
        if (elements == null) {
            add(value);
        } else {
            out.append(count++ > 0 ? "," : "").append(nested(elements));
        }
    }

    /** PostgreSQL cannot store NUL, and half of a surrogate pair would silently become a question mark. */
    private void quote(CharSequence text) {
        out.append('"');
        int length = text.length();
        for (int i = 0; i < length; i++) {
            char c = text.charAt(i);
            if (c == '"' || c == '\\') {
                out.append('\\');
            } else if (c == 0) {
                throw new IllegalArgumentException("a text with the character U+0000 cannot be stored");
            } else if (Character.isSurrogate(c)) {
                if (Character.isLowSurrogate(c) || i + 1 == length || !Character.isLowSurrogate(text.charAt(i + 1))) {
                    throw new IllegalArgumentException("a text with half of a surrogate pair cannot be encoded");
                }
                out.append(c);
                c = text.charAt(++i);
            }
            out.append(c);
        }
        out.append('"');
    }

    /** The whole of it. */
    String text() {
        return out.toString() + '}';
    }

    /** Where the elements begin, for {@link #text(int[], boolean[])}. */
    int position() {
        return out.length();
    }

    /** The elements that are kept. */
    String text(int[] starts, boolean[] dropped) {
        StringBuilder kept = new StringBuilder(out.length()).append('{');
        for (int i = 0; i < count; i++) {
            if (!dropped[i]) {
                int from = i == 0 ? 1 : starts[i] + 1;
                int to = i + 1 < count ? starts[i + 1] : out.length();
                kept.append(kept.length() > 1 ? "," : "").append(out, from, to);
            }
        }
        return kept.append('}').toString();
    }
}
