package dev.r2dbcscope.benchmarks;

import io.netty.buffer.ByteBuf;
import java.io.ByteArrayOutputStream;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.ObjectMapper;
import tools.jackson.databind.json.JsonMapper;

/** Counts the lines of an answer as its bytes come, and looks into one of a thousand of them. */
final class LineCheck {

    private static final int INTERVAL = 1_000;
    private static final ObjectMapper JSON = JsonMapper.shared();

    private final int expected;
    private final HeapInUse heap;
    private final int samples;
    private final ByteArrayOutputStream line = new ByteArrayOutputStream();

    private long lines;
    private boolean endsInALine;

    /** Samples the heap ten times, if there is something to sample it. */
    LineCheck(int expected, HeapInUse heap) {
        this.expected = expected;
        this.heap = heap;
        this.samples = Math.max(1, expected / 10);
    }

    void add(ByteBuf bytes) {
        int start = bytes.readerIndex();
        int end = bytes.writerIndex();
        for (int lf = bytes.indexOf(start, end, (byte) '\n'); lf >= 0; lf = bytes.indexOf(start, end, (byte) '\n')) {
            keep(bytes, start, lf);
            ended();
            start = lf + 1;
        }
        keep(bytes, start, end);
        endsInALine = start < end;
    }

    private void keep(ByteBuf bytes, int start, int end) {
        if (lines % INTERVAL == 0) {
            byte[] part = new byte[end - start];
            bytes.getBytes(start, part);
            line.writeBytes(part);
        }
    }

    private void ended() {
        if (lines % INTERVAL == 0) {
            JsonNode order = JSON.readTree(line.toByteArray());
            long id = order.get("id").longValue();
            if (id < 1
                    || id > expected
                    || order.size() != 5
                    || !order.get("note").stringValue().equals(Order.note(id))
                    || order.get("price").doubleValue() != id * 0.25) {
                throw new IllegalStateException("not an order: " + order);
            }
            line.reset();
        }
        lines++;
        if (heap != null && lines % samples == 0) {
            heap.sample();
        }
    }

    /** The number of lines, if it is that of the rows. */
    long lines(String side) {
        if (lines != expected || endsInALine) {
            throw new IllegalStateException(side + " sent " + lines + " lines instead of " + expected);
        }
        return lines;
    }
}
