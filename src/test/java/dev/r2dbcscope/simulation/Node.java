package dev.r2dbcscope.simulation;

import dev.r2dbcscope.OnCancel;
import dev.r2dbcscope.Propagation;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** A pipeline as data: a tree of sources, operators and scopes, which {@link Code} makes a publisher of. */
sealed interface Node {

    /** The parts of which it is made. */
    default List<Node> children() {
        return List.of();
    }

    /** The same made of other parts, of which there must be as many. */
    default Node with(List<Node> children) {
        return this;
    }

    /** How the result of a statement is read. */
    enum Reading {
        ROWS,
        COUNT,
        /** {@code execute().then()}. */
        UNREAD,
        /** By segments, each followed by another statement on the same connection. */
        NESTED,
        /** The execution is left as soon as the first result is there. */
        FIRST_RESULT
    }

    /**
     * A statement.
     *
     * @param fetchSize zero for none
     * @param byHandle on the connection that the closure around it got, if there is one, instead of one that the factory
     *     is asked for
     */
    record Query(Reading reading, int rows, int fetchSize, boolean byHandle) implements Node {}

    /** Elements without a database. */
    record Values(int count) implements Node {}

    /** The user's own error. */
    record Fail() implements Node {}

    /** One element after a while. */
    record Pause(int millis) implements Node {}

    /** One element, and a statement for which nobody waits, after a while. */
    record Stray(int millis, boolean byHandle) implements Node {}

    /** Dooms the transaction around it. */
    record Doom() implements Node {}

    /** How a scope is written. */
    enum Shape {
        MONO_CLOSURE,
        FLUX_CLOSURE,
        MONO_OPERATOR,
        FLUX_OPERATOR;

        boolean isMono() {
            return this == MONO_CLOSURE || this == MONO_OPERATOR;
        }

        boolean isClosure() {
            return this == MONO_CLOSURE || this == FLUX_CLOSURE;
        }
    }

    /**
     * A scope.
     *
     * @param mode {@code null} for a plain one
     * @param emitAfterCommit zero for as they come
     * @param retries how often a transaction is tried again
     * @param maxHoldMillis zero for no limit
     * @param hooks whether it registers hooks, which take a while
     */
    record Scope(
            @Nullable Propagation mode,
            Shape shape,
            OnCancel onCancel,
            int emitAfterCommit,
            int retries,
            int maxHoldMillis,
            boolean hooks,
            Node body)
            implements Node {

        @Override
        public List<Node> children() {
            return List.of(body);
        }

        @Override
        public Node with(List<Node> children) {
            return new Scope(mode, shape, onCancel, emitAfterCommit, retries, maxHoldMillis, hooks, children.get(0));
        }

        /** The same without its options. */
        Scope plainest() {
            return new Scope(mode, shape, OnCancel.ROLLBACK, 0, 0, 0, false, body);
        }
    }

    /** How several pipelines are put together. */
    enum Joint {
        CONCAT,
        MERGE,
        MERGE_DELAY_ERROR,
        ZIP,
        FIRST_WITH_SIGNAL,
        COMBINE_LATEST
    }

    /** Several pipelines. */
    record Many(Joint joint, List<Node> parts) implements Node {

        @Override
        public List<Node> children() {
            return parts;
        }

        @Override
        public Node with(List<Node> children) {
            return new Many(joint, children);
        }
    }

    /** How a pipeline is run for each element of another. */
    enum Mapping {
        CONCAT_MAP,
        FLAT_MAP,
        FLAT_MAP_SEQUENTIAL,
        FLAT_MAP_DELAY_ERROR,
        SWITCH_MAP
    }

    /** A pipeline for each element of another. */
    record Each(Mapping mapping, int concurrency, Node outer, Node inner) implements Node {

        @Override
        public List<Node> children() {
            return List.of(outer, inner);
        }

        @Override
        public Node with(List<Node> children) {
            return new Each(mapping, concurrency, children.get(0), children.get(1));
        }
    }

    /** An operator with a number. */
    enum Operator {
        TAKE,
        NEXT,
        MONO_FROM,
        TIMEOUT,
        RETRY,
        REPEAT,
        PUBLISH_ON,
        SUBSCRIBE_ON,
        DELAY_ELEMENTS,
        DELAY_SUBSCRIPTION,
        RESUME,
        LIMIT_RATE,
        FILTER,
        BUFFER,
        BACKPRESSURE_BUFFER,
        COLLECT,
        TAKE_UNTIL_OTHER,
        THROW
    }

    /** An operator around a pipeline. */
    record Op(Operator operator, int n, Node source) implements Node {

        @Override
        public List<Node> children() {
            return List.of(source);
        }

        @Override
        public Node with(List<Node> children) {
            return new Op(operator, n, children.get(0));
        }
    }
}
