package dev.r2dbcscope.testkit;

import io.netty.buffer.ByteBuf;
import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.channel.socket.ChannelInputShutdownEvent;
import io.netty.channel.socket.ChannelInputShutdownReadComplete;
import io.netty.channel.socket.DuplexChannel;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.concurrent.TimeUnit;

/**
 * One direction of a connection: a line of bytes that have been received and are due to be sent on.
 *
 * <p>It reads only while its line is short, and sends only while the receiver takes it, so that it needs {@value #LONGEST_LINE} bytes and what one
 * read brings, whatever is sent through it. The faults sit at the end of the line: what comes out of it has its delay behind it.
 *
 * <p>Everything happens on the one thread of the proxy, except that a fault may be set by any thread.
 */
final class ProxiedStream extends ChannelInboundHandlerAdapter {

    private static final int LONGEST_LINE = 1 << 20;

    private final ProxiedConnection connection;
    private final Channel from;
    private final Channel to;
    private final boolean fromClient;
    private final Deque<Piece> line = new ArrayDeque<>();
    private int queued;
    private long freeAt = System.nanoTime();
    private long endsAt;
    private boolean ended;
    private boolean endPassed;
    private boolean scheduled;
    private boolean pumping;
    private volatile boolean stalled;
    private volatile boolean lost;

    private record Piece(ByteBuf bytes, long due) {}

    ProxiedStream(ProxiedConnection connection, Channel from, Channel to, boolean fromClient) {
        this.connection = connection;
        this.from = from;
        this.to = to;
        this.fromClient = fromClient;
    }

    void stall(boolean value) {
        stalled = value;
    }

    void lose() {
        lost = true;
    }

    boolean isLost() {
        return lost;
    }

    boolean hasEnded() {
        return ended;
    }

    @Override
    public void channelRead(ChannelHandlerContext ctx, Object message) {
        ByteBuf bytes = (ByteBuf) message;
        queued += bytes.readableBytes();
        line.add(new Piece(bytes, System.nanoTime() + shape().latency()));
    }

    @Override
    public void channelReadComplete(ChannelHandlerContext ctx) {
        pump();
    }

    /** The receiver of the other direction takes more. */
    @Override
    public void channelWritabilityChanged(ChannelHandlerContext ctx) {
        connection.opposite(this).pump();
        ctx.fireChannelWritabilityChanged();
    }

    @Override
    public void userEventTriggered(ChannelHandlerContext ctx, Object event) {
        if (event instanceof ChannelInputShutdownEvent) {
            end();
        } else if (!(event instanceof ChannelInputShutdownReadComplete)) {
            ctx.fireUserEventTriggered(event);
        }
    }

    @Override
    public void channelInactive(ChannelHandlerContext ctx) {
        end();
        connection.gone(this);
        ctx.fireChannelInactive();
    }

    @Override
    public void exceptionCaught(ChannelHandlerContext ctx, Throwable broken) {
        connection.broken(this);
    }

    @Override
    public void handlerRemoved(ChannelHandlerContext ctx) {
        line.forEach(piece -> piece.bytes().release());
        line.clear();
        queued = 0;
    }

    private void end() {
        if (!ended) {
            ended = true;
            endsAt = System.nanoTime() + shape().latency();
        }
        pump();
    }

    private NetworkShape shape() {
        return connection.proxy().shape(fromClient);
    }

    /** Sends on what is due and what the receiver takes, then reads more. */
    void pump() {
        if (pumping) {
            return; // a write may tell that the receiver takes more before it has returned
        }
        pumping = true;
        try {
            while (!line.isEmpty() && isFree(line.element().due())) {
                sendSome(line.element().bytes());
                if (!line.element().bytes().isReadable()) {
                    line.remove().bytes().release();
                }
            }
            if (!ended && queued < LONGEST_LINE) {
                from.read();
            } else if (ended && line.isEmpty() && !endPassed && isFree(endsAt)) {
                passEnd();
            }
        } finally {
            pumping = false;
        }
    }

    /** Whether the next bytes may go on now; if only time is missing for that, it comes back then. */
    private boolean isFree(long due) {
        if (lost) {
            return true;
        }
        if (stalled || !line.isEmpty() && !to.isWritable()) {
            return false;
        }
        long now = System.nanoTime();
        long wait = Math.max(due - now, freeAt - now);
        if (wait <= 0) {
            return true;
        }
        if (!scheduled) {
            scheduled = true;
            from.eventLoop().schedule(this::timeHasCome, wait, TimeUnit.NANOSECONDS);
        }
        return false;
    }

    private void timeHasCome() {
        scheduled = false;
        pump();
    }

    /** Sends as much as the bandwidth allows, up to the moment of the first trigger. */
    private void sendSome(ByteBuf bytes) {
        int length = shape().portion(bytes.readableBytes());
        int passes = length;
        ArmedFault next = null;
        if (!lost) {
            for (ArmedFault armed : connection.proxy().armed()) {
                int found = armed.watches(fromClient) ? armed.on(connection).find(bytes, length) : -1;
                if (found >= 0 && (next == null || found < passes)) {
                    passes = found;
                    next = armed;
                }
            }
        }
        pass(bytes, passes);
        if (next != null && next.spend()) {
            connection.proxy().strike(next, connection);
        }
    }

    private void pass(ByteBuf bytes, int length) {
        queued -= length;
        if (lost) {
            connection.proxy().lost(length);
            bytes.skipBytes(length);
            return;
        }
        if (length == 0) {
            return;
        }
        for (ArmedFault armed : connection.proxy().armed()) {
            if (armed.watches(fromClient)) {
                armed.on(connection).passed(bytes, length);
            }
        }
        freeAt = Math.max(freeAt, System.nanoTime()) + shape().nanosFor(length);
        connection.passed(fromClient, length);
        to.writeAndFlush(bytes.readRetainedSlice(length));
    }

    /** The receiver is told that no more comes, unless that is lost as well. */
    private void passEnd() {
        endPassed = true;
        if (!lost && to instanceof DuplexChannel duplex) {
            ProxiedConnection.behindWhatPassed(to).addListener(written -> duplex.shutdownOutput());
        }
        connection.endPassed();
    }
}
