package dev.r2dbcscope.testkit;

/**
 * What a {@link FaultyProxy} does to a connection that a client has to a server through it.
 *
 * <p>Requests are the bytes from the client to the server, answers those from the server to the client. A fault lasts until {@link FaultyProxy#heal},
 * unless it ends the connection.
 */
public enum NetworkFault {

    /** Ends the connection: both sides see the end of what the other one sends, as if the other one had closed it. */
    CUT(Loss.BOTH, Ending.CLOSE),

    /**
     * Resets the connection: both sides get an error from the operating system ("connection reset"). It may overtake bytes that
     * were carried, but that the receiver has not read yet.
     */
    RESET(Loss.BOTH, Ending.RESET),

    /** The server sees the end of the connection, the client is told nothing: it sends requests that nobody gets. */
    HALF_OPEN(Loss.BOTH, Ending.CLOSE_SERVER),

    /** Both sides keep their connections, and everything that they send is lost without a sign of it. */
    BLACK_HOLE(Loss.BOTH, Ending.NONE),

    /** What the client sends is lost without a sign of it; what the server sends arrives. */
    REQUESTS_LOST(Loss.REQUESTS, Ending.NONE),

    /** What the server sends is lost without a sign of it; what the client sends arrives. */
    ANSWERS_LOST(Loss.ANSWERS, Ending.NONE),

    /** Nothing is carried any more in either direction, but nothing is lost: it arrives after {@link FaultyProxy#heal}. */
    STALL(Loss.NONE, Ending.NONE),

    /** What the server sends is kept back until {@link FaultyProxy#heal}; what the client sends arrives. */
    ANSWERS_STALLED(Loss.NONE, Ending.NONE);

    private enum Loss {
        NONE,
        REQUESTS,
        ANSWERS,
        BOTH
    }

    /** What becomes of the sockets. */
    enum Ending {
        NONE,
        CLOSE,
        CLOSE_SERVER,
        RESET
    }

    private final Loss loss;
    private final Ending ending;

    NetworkFault(Loss loss, Ending ending) {
        this.loss = loss;
        this.ending = ending;
    }

    boolean losesRequests() {
        return loss == Loss.BOTH || loss == Loss.REQUESTS;
    }

    boolean losesAnswers() {
        return loss == Loss.BOTH || loss == Loss.ANSWERS;
    }

    boolean stallsRequests() {
        return this == STALL;
    }

    boolean stallsAnswers() {
        return this == STALL || this == ANSWERS_STALLED;
    }

    Ending ending() {
        return ending;
    }
}
