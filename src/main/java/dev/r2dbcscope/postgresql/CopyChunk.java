package dev.r2dbcscope.postgresql;

import io.netty.buffer.UnpooledByteBufAllocator;
import io.netty.buffer.UnpooledHeapByteBuf;
import java.util.function.Consumer;

/**
 * Encoded rows on their way to the socket. When the driver has copied them into a buffer of its own, it releases this one, and the
 * bytes come back to be used again: that is also how {@link CopyFeed} knows how far the driver is.
 */
final class CopyChunk extends UnpooledHeapByteBuf {

    private final Consumer<byte[]> back;

    CopyChunk(byte[] bytes, int length, Consumer<byte[]> back) {
        super(UnpooledByteBufAllocator.DEFAULT, bytes, bytes.length);
        this.back = back;
        setIndex(0, length);
    }

    @Override
    protected void freeArray(byte[] array) {
        back.accept(array);
    }
}
