package dev.r2dbcscope;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

/**
 * The network between the driver and the server, for tests that break it: everything passes until a fault is armed.
 *
 * <p>{@link Fault#CUT} closes the sockets; {@link Fault#BLACK_HOLE} leaves them open and carries nothing any more.
 */
final class NetworkProxy implements AutoCloseable {

    enum Fault {
        CUT,
        BLACK_HOLE
    }

    private record Trigger(Fault fault, String word, long serverBytes) {}

    private final ServerSocket listener;
    private final int serverPort;
    private final Set<Link> links = ConcurrentHashMap.newKeySet();
    private final AtomicReference<Trigger> armed = new AtomicReference<>();
    private volatile CountDownLatch struck = new CountDownLatch(1);
    private volatile CountDownLatch sent = new CountDownLatch(0);
    private volatile String awaited = "";
    private volatile CountDownLatch newcomers = new CountDownLatch(0);

    NetworkProxy(int serverPort) {
        this(serverPort, 0);
    }

    /** Listens where another one did before; zero is a free port. */
    NetworkProxy(int serverPort, int port) {
        this.serverPort = serverPort;
        try {
            listener = new ServerSocket(port, 50, InetAddress.getLoopbackAddress());
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        daemon(this::accept);
    }

    int port() {
        return listener.getLocalPort();
    }

    /** The fault happens when the client sends the word, which does not reach the server. */
    void whenClientSends(String word, Fault fault) {
        arm(new Trigger(fault, word, 0));
    }

    /** The fault happens when the server has sent so many bytes from now on. */
    void whenServerHasSent(long bytes, Fault fault) {
        links.forEach(link -> link.fromServer = 0);
        arm(new Trigger(fault, "", bytes));
    }

    private void arm(Trigger trigger) {
        struck = new CountDownLatch(1);
        armed.set(trigger);
    }

    /** The server's answers are kept back until the client has sent the word. */
    void keepAnswersUntilClientSends(String word) {
        awaited = word;
        sent = new CountDownLatch(1);
    }

    /** Connections that come from now on are accepted, but get no further until they are let in. */
    void holdNewcomers() {
        newcomers = new CountDownLatch(1);
    }

    void letNewcomersIn() {
        newcomers.countDown();
    }

    /** Connections that come from now on are refused. */
    void refuseNewcomers() throws IOException {
        listener.close();
    }

    boolean awaitFault() {
        try {
            return struck.await(60, TimeUnit.SECONDS);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    /** The fault happens now, to every connection. */
    void strike(Fault fault) {
        links.forEach(link -> link.strike(fault));
    }

    /** The server, too, learns that the connections in the black hole are gone. */
    void cutDead() {
        links.stream().filter(link -> link.swallows).forEach(Link::cut);
    }

    private void accept() {
        try {
            while (true) {
                Socket client = listener.accept();
                daemon(() -> connect(client, newcomers));
            }
        } catch (IOException closed) {
            // the end of the proxy
        }
    }

    private void connect(Socket client, CountDownLatch entrance) {
        try {
            entrance.await();
            Link link = new Link(client, new Socket(InetAddress.getLoopbackAddress(), serverPort));
            links.add(link);
            daemon(() -> link.carry(client, link.server, true));
            daemon(() -> link.carry(link.server, client, false));
        } catch (IOException | InterruptedException gone) {
            // the server, with the end of the tests
        }
    }

    private static void daemon(Runnable task) {
        Thread thread = new Thread(task, "proxy");
        thread.setDaemon(true);
        thread.start();
    }

    @Override
    public void close() throws IOException {
        listener.close();
        strike(Fault.CUT);
    }

    /** One connection. */
    private final class Link {

        final Socket client;
        final Socket server;
        volatile long fromServer;
        volatile boolean swallows;

        Link(Socket client, Socket server) {
            this.client = client;
            this.server = server;
        }

        void carry(Socket from, Socket to, boolean fromClient) {
            byte[] bytes = new byte[8192];
            try {
                InputStream in = from.getInputStream();
                OutputStream out = to.getOutputStream();
                int read;
                while ((read = in.read(bytes)) >= 0) {
                    inspect(new String(bytes, 0, read, StandardCharsets.ISO_8859_1), fromClient);
                    if (!fromClient) {
                        sent.await();
                    }
                    if (!swallows) {
                        out.write(bytes, 0, read);
                    }
                }
                cutUnlessSwallowing();
            } catch (IOException | InterruptedException broken) {
                cutUnlessSwallowing();
            }
        }

        private void inspect(String text, boolean fromClient) {
            if (fromClient && text.contains(awaited)) {
                sent.countDown();
            }
            Trigger trigger = armed.get();
            if (trigger == null) {
                return;
            }
            if (!fromClient) {
                fromServer += text.length();
            }
            boolean due = trigger.word.isEmpty()
                    ? !fromClient && fromServer >= trigger.serverBytes
                    : fromClient && text.contains(trigger.word);
            if (due && armed.compareAndSet(trigger, null)) {
                strike(trigger.fault);
                struck.countDown();
            }
        }

        void strike(Fault fault) {
            swallows = true;
            if (fault == Fault.CUT) {
                cut();
            }
        }

        private void cutUnlessSwallowing() {
            if (!swallows) {
                cut();
            }
        }

        private void cut() {
            links.remove(this);
            try (client;
                    server) {
                // closes both
            } catch (IOException ignored) {
                // closed already
            }
        }
    }
}
