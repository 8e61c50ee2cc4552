package dev.r2dbcscope.testkit;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/** A server of plain sockets, and the two ends of a connection to it through a proxy. */
final class Peers implements AutoCloseable {

    /** Nobody waits longer than this, however slow the machine. */
    private static final int LIMIT = 60_000;

    private final ServerSocket listener;
    private final BlockingQueue<Socket> arrived = new LinkedBlockingQueue<>();

    Peers() {
        try {
            listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        Thread thread = new Thread(this::accept, "server");
        thread.setDaemon(true);
        thread.start();
    }

    private void accept() {
        try {
            while (true) {
                arrived.add(limited(listener.accept()));
            }
        } catch (IOException closed) {
            // the end of the test
        }
    }

    private static Socket limited(Socket socket) throws IOException {
        socket.setSoTimeout(LIMIT);
        socket.setTcpNoDelay(true);
        return socket;
    }

    FaultyProxy proxy() {
        return FaultyProxy.to(listener.getInetAddress().getHostAddress(), listener.getLocalPort());
    }

    int port() {
        return listener.getLocalPort();
    }

    /** The server's end of the next connection. */
    Socket next() throws InterruptedException {
        Socket next = arrived.poll(LIMIT, TimeUnit.MILLISECONDS);
        assertThat(next).as("the server's end").isNotNull();
        return java.util.Objects.requireNonNull(next);
    }

    @Nullable
    Socket nextIfAny() {
        return arrived.poll();
    }

    static Socket connect(FaultyProxy proxy) throws IOException {
        return limited(new Socket(proxy.host(), proxy.port()));
    }

    static void send(Socket socket, String text) throws IOException {
        socket.getOutputStream().write(text.getBytes(StandardCharsets.UTF_8));
    }

    static String receive(Socket socket, int length) throws IOException {
        return new String(socket.getInputStream().readNBytes(length), StandardCharsets.UTF_8);
    }

    static String receiveAll(Socket socket) throws IOException {
        return new String(socket.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    }

    /** How many bytes come before the connection ends, well or not. */
    static long drain(Socket socket) {
        long received = 0;
        try {
            InputStream in = socket.getInputStream();
            byte[] bytes = new byte[65_536];
            for (int read = in.read(bytes); read >= 0; read = in.read(bytes)) {
                received += read;
            }
            return received;
        } catch (java.net.SocketTimeoutException e) {
            throw new UncheckedIOException(e);
        } catch (IOException reset) {
            return received;
        }
    }

    @Override
    public void close() throws IOException {
        listener.close();
        for (Socket socket = arrived.poll(); socket != null; socket = arrived.poll()) {
            socket.close();
        }
    }
}
