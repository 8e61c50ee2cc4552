package dev.r2dbcscope.etl;

import dev.r2dbcscope.TckTests;
import java.time.Duration;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;
import org.reactivestreams.Publisher;
import org.reactivestreams.tck.PublisherVerification;
import reactor.core.publisher.Flux;

/** The Reactive Streams TCK for chunks of one row, and of three, with a time limit. */
class FluxChunksTckTest {

    @TestFactory
    Stream<DynamicTest> chunksOfOneRow() {
        return TckTests.of(OfOne.class, 20, () -> {});
    }

    @TestFactory
    Stream<DynamicTest> chunksOfThreeRowsAtMost() {
        return TckTests.of(OfThree.class, 20, () -> {});
    }

    private static Publisher<Chunk<Integer>> chunks(long number, int rows) {
        long all = Math.min(number, Integer.MAX_VALUE / rows) * rows;
        return FluxChunks.of(
                Flux.range(0, (int) all),
                ChunkBounds.<Integer>defaults().withMaxRows(rows).withMaxWait(Duration.ofHours(1)));
    }

    /** Not found by the build itself, which looks at top-level classes only. */
    public static final class OfOne extends PublisherVerification<Chunk<Integer>> {

        public OfOne() {
            super(TckTests.environment());
        }

        @Override
        public Publisher<Chunk<Integer>> createPublisher(long elements) {
            return chunks(elements, 1);
        }

        @Override
        public Publisher<Chunk<Integer>> createFailedPublisher() {
            return FluxChunks.of(Flux.error(new IllegalStateException("as wanted")), ChunkBounds.defaults());
        }

        @Override
        public long maxElementsFromPublisher() {
            return Integer.MAX_VALUE - 1;
        }
    }

    /** Not found by the build itself, which looks at top-level classes only. */
    public static final class OfThree extends PublisherVerification<Chunk<Integer>> {

        public OfThree() {
            super(TckTests.environment());
        }

        @Override
        public Publisher<Chunk<Integer>> createPublisher(long elements) {
            return chunks(elements, 3);
        }

        @Override
        public Publisher<Chunk<Integer>> createFailedPublisher() {
            return FluxChunks.of(Flux.error(new IllegalStateException("as wanted")), ChunkBounds.defaults());
        }

        @Override
        public long maxElementsFromPublisher() {
            return Integer.MAX_VALUE / 3 - 1;
        }
    }
}
