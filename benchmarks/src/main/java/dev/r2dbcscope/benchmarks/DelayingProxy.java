package dev.r2dbcscope.benchmarks;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.Arrays;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;

/**
 * A loopback network with a longer way: what is sent arrives so much later, at the same rate. It counts round trips as the client
 * sees them: one begins when the client sends something on a connection on which something has reached it since it last sent
 * something. What it sends before an answer has reached it belongs to the same round trip.
 */
final class DelayingProxy implements AutoCloseable {

    private static final byte[] END = new byte[0];

    private final ServerSocket listener;
    private final int serverPort;
    private final long delayNanos;

    private final AtomicLong roundTrips = new AtomicLong();

    private record Packet(byte[] bytes, long due) {}

    /** Adds half of the round-trip time in each direction. */
    DelayingProxy(int serverPort, long roundTripMillis) {
        this.serverPort = serverPort;
        this.delayNanos = TimeUnit.MILLISECONDS.toNanos(roundTripMillis) / 2;
        try {
            listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        daemon(this::accept);
    }

    int port() {
        return listener.getLocalPort();
    }

    /** How many have begun so far, on all connections. */
    long roundTrips() {
        return roundTrips.get();
    }

    private void accept() {
        try {
            while (true) {
                Socket client = listener.accept();
                Socket server = new Socket(InetAddress.getLoopbackAddress(), serverPort);
                client.setTcpNoDelay(true);
                server.setTcpNoDelay(true);
                AtomicBoolean answered = new AtomicBoolean(true);
                carry(client, server, () -> sentByClient(answered), () -> {});
                carry(server, client, () -> {}, () -> answered.set(true));
            }
        } catch (IOException closed) {
            // the end of the proxy
        }
    }

    private void sentByClient(AtomicBoolean answered) {
        if (answered.getAndSet(false)) {
            roundTrips.incrementAndGet();
        }
    }

    private void carry(Socket from, Socket to, Runnable onReceived, Runnable onDelivery) {
        BlockingQueue<Packet> way = new LinkedBlockingQueue<>();
        daemon(() -> receive(from, way, onReceived));
        daemon(() -> deliver(way, to, onDelivery));
    }

    private void receive(Socket from, BlockingQueue<Packet> way, Runnable onReceived) {
        byte[] buffer = new byte[65_536];
        try {
            InputStream in = from.getInputStream();
            int read;
            while ((read = in.read(buffer)) >= 0) {
                onReceived.run();
                way.add(new Packet(Arrays.copyOf(buffer, read), System.nanoTime() + delayNanos));
            }
        } catch (IOException broken) {
            // ends like a closed one
        } finally {
            way.add(new Packet(END, 0));
        }
    }

    private static void deliver(BlockingQueue<Packet> way, Socket to, Runnable onDelivery) {
        try (to) {
            OutputStream out = to.getOutputStream();
            for (Packet next = way.take(); next.bytes() != END; next = way.take()) {
                long wait = next.due() - System.nanoTime();
                if (wait > 0) {
                    TimeUnit.NANOSECONDS.sleep(wait);
                }
                onDelivery.run();
                out.write(next.bytes());
            }
        } catch (IOException | InterruptedException broken) {
            // the other direction notices it, too
        }
    }

    private static void daemon(Runnable task) {
        Thread thread = new Thread(task, "delaying-proxy");
        thread.setDaemon(true);
        thread.start();
    }

    @Override
    public void close() throws IOException {
        listener.close();
    }
}
