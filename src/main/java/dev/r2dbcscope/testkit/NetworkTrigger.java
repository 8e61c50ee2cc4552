package dev.r2dbcscope.testkit;

import java.nio.charset.StandardCharsets;
import java.util.Objects;
import java.util.SplittableRandom;

/**
 * The moment at which a {@link FaultyProxy} strikes: at a byte, or at a word, that one side of a connection sends.
 *
 * <p>What is sent is looked at on every connection of the proxy by itself, from the moment at which the trigger is set, or from the
 * connection's beginning if that comes later. The first connection on which the moment comes is struck, and the trigger is spent.
 *
 * <p>Immutable and thread-safe.
 *
 * @see FaultyProxy#strikeWhen
 */
public final class NetworkTrigger {

    private final boolean fromClient;
    private final long bytes;
    private final byte[] word;
    private final boolean everywhere;
    private final String description;

    private NetworkTrigger(boolean fromClient, long bytes, byte[] word, boolean everywhere, String description) {
        this.fromClient = fromClient;
        this.bytes = bytes;
        this.word = word;
        this.everywhere = everywhere;
        this.description = description;
    }

    /**
     * When the client sends a word. What it sends before the word passes, the word does not; if it comes in pieces, because the
     * network has cut it in two, the last piece does not.
     *
     * @param word the word, in UTF-8, not empty: {@code "COMMIT"}
     * @return the trigger
     * @throws IllegalArgumentException if the word is empty
     */
    public static NetworkTrigger clientSends(String word) {
        return word(true, word);
    }

    /**
     * When the server sends a word. What it sends before the word passes, the word does not; if it comes in pieces, because the
     * network has cut it in two, the last piece does not.
     *
     * @param word the word, in UTF-8, not empty
     * @return the trigger
     * @throws IllegalArgumentException if the word is empty
     */
    public static NetworkTrigger serverSends(String word) {
        return word(false, word);
    }

    private static NetworkTrigger word(boolean fromClient, String word) {
        if (Objects.requireNonNull(word, "word").isEmpty()) {
            throw new IllegalArgumentException("word must not be empty");
        }
        String description = (fromClient ? "the client" : "the server") + " sends \"" + word + "\"";
        return new NetworkTrigger(fromClient, 0, word.getBytes(StandardCharsets.UTF_8), false, description);
    }

    /**
     * When the client sends more than so many bytes: exactly so many pass, and the next one does not.
     *
     * @param bytes how many pass, zero or more
     * @return the trigger
     * @throws IllegalArgumentException if it is negative
     */
    public static NetworkTrigger afterClientBytes(long bytes) {
        return bytes(true, bytes);
    }

    /**
     * When the server sends more than so many bytes: exactly so many pass, and the next one does not.
     *
     * @param bytes how many pass, zero or more
     * @return the trigger
     * @throws IllegalArgumentException if it is negative
     */
    public static NetworkTrigger afterServerBytes(long bytes) {
        return bytes(false, bytes);
    }

    private static NetworkTrigger bytes(boolean fromClient, long bytes) {
        if (bytes < 0) {
            throw new IllegalArgumentException("bytes must not be negative: " + bytes);
        }
        String description = (fromClient ? "the client" : "the server") + " sends more than " + bytes + " bytes";
        return new NetworkTrigger(fromClient, bytes, new byte[0], false, description);
    }

    /**
     * At a byte that a seed chooses, of either side: the same seed, the same byte. Small numbers are as likely as large ones are
     * together, because most exchanges with a database are short.
     *
     * @param seed the seed
     * @param bytes below this number of bytes, at least 1
     * @return the trigger
     * @throws IllegalArgumentException if {@code bytes} is not positive
     */
    public static NetworkTrigger seeded(long seed, long bytes) {
        if (bytes < 1) {
            throw new IllegalArgumentException("bytes must be positive: " + bytes);
        }
        SplittableRandom random = new SplittableRandom(seed);
        boolean fromClient = random.nextBoolean();
        return bytes(fromClient, (long) Math.pow(bytes, random.nextDouble()) - 1);
    }

    /**
     * Strikes all connections that the proxy has at that moment, not only the one on which it comes.
     *
     * @return a copy that does
     */
    public NetworkTrigger everywhere() {
        return new NetworkTrigger(fromClient, bytes, word, true, description);
    }

    boolean isFromClient() {
        return fromClient;
    }

    boolean isEverywhere() {
        return everywhere;
    }

    /** Looks at what one side of one connection sends from now on. */
    NetworkWatch watch() {
        return word.length == 0 ? new NetworkWatch.ForByte(bytes) : new NetworkWatch.ForWord(word);
    }

    @Override
    public String toString() {
        return "when " + description + (everywhere ? ", on every connection" : "");
    }
}
