package dev.r2dbcscope.demo;

/** The demo cannot begin; the message is one line for its user. */
final class CannotBeginException extends RuntimeException {

    private static final long serialVersionUID = 1L;

    CannotBeginException(String message) {
        super(message);
    }
}
