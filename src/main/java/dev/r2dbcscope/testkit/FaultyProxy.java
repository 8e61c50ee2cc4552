package dev.r2dbcscope.testkit;

import io.netty.channel.ChannelOption;
import io.netty.channel.EventLoop;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.netty.Connection;
import reactor.netty.DisposableServer;
import reactor.netty.resources.LoopResources;
import reactor.netty.tcp.TcpClient;
import reactor.netty.tcp.TcpServer;

/**
 * A TCP proxy on the loopback interface that stands between a test and its server, and makes the network slow or breaks it when told:
 *
 * <pre>{@code
 * try (FaultyProxy network = FaultyProxy.to("localhost", 5432)) {
 *     ConnectionFactory factory = connectTo(network.host(), network.port());
 *     Mono<Void> struck = network.strikeWhen(NetworkTrigger.clientSends("COMMIT"), NetworkFault.CUT);
 *     ...
 * }
 * }</pre>
 *
 * <p>Until it is told otherwise, everything passes: bytes, the end of either direction, and resets. It reads from one side no faster than the other one takes it,
 * and keeps at most some megabytes of a connection.
 *
 * <p><em>Lifetime:</em> it listens as soon as it was made, until {@link #close}, which ends its connections. All proxies of a JVM
 * share one daemon thread.
 *
 * <p>Needs {@code io.projectreactor.netty:reactor-netty-core}, an optional dependency of the library.
 *
 * <p>Thread-safe. {@link #to}, {@link #close}, {@link #refuseNewcomers} and {@link #letNewcomersIn} wait for the operating system, and must
 * not be called on a thread that must not block, such as an event loop's; everything else may be called anywhere. What is set or
 * armed applies to every byte that is sent afterwards.
 */
public final class FaultyProxy implements AutoCloseable {

    /** One thread, so that everything that proxies do happens in an order. */
    private static final LoopResources THREAD = LoopResources.create("faulty-proxy", 1, true);

    private static final Duration LONGEST_START = Duration.ofSeconds(30);

    private final String serverHost;
    private final int serverPort;
    private final Set<ProxiedConnection> connections = ConcurrentHashMap.newKeySet();
    private final Set<Connection> clients = ConcurrentHashMap.newKeySet();
    private final List<ArmedFault> armed = new CopyOnWriteArrayList<>();
    private final AtomicLong accepted = new AtomicLong();
    private final AtomicLong requestBytes = new AtomicLong();
    private final AtomicLong answerBytes = new AtomicLong();
    private final AtomicLong lostBytes = new AtomicLong();
    private final AtomicLong roundTrips = new AtomicLong();
    private final int port;
    private volatile NetworkShape requests = NetworkShape.NONE;
    private volatile NetworkShape answers = NetworkShape.NONE;
    private volatile Sinks.@Nullable Empty<Void> entrance;
    private volatile boolean closed;
    private @Nullable DisposableServer listener;

    private FaultyProxy(String serverHost, int serverPort, int port) {
        this.serverHost = serverHost;
        this.serverPort = serverPort;
        this.listener = bind(port);
        this.port = ((InetSocketAddress) listener.address()).getPort();
    }

    /**
     * Starts a proxy on a free port.
     *
     * @param host the server's host
     * @param port the server's port
     * @return a proxy that listens; connections to the server are made one for one, as clients come
     */
    public static FaultyProxy to(String host, int port) {
        return to(host, port, 0);
    }

    /**
     * Starts a proxy on a given port, for instance one on which another proxy listened before.
     *
     * @param host the server's host
     * @param port the server's port
     * @param listeningPort the proxy's own port, or zero for a free one
     * @return a proxy that listens; connections to the server are made one for one, as clients come
     */
    public static FaultyProxy to(String host, int port, int listeningPort) {
        return new FaultyProxy(Objects.requireNonNull(host, "host"), port, listeningPort);
    }

    private DisposableServer bind(int listeningPort) {
        return TcpServer.create()
                .runOn(THREAD, false)
                .host(host())
                .port(listeningPort)
                .childOption(ChannelOption.ALLOW_HALF_CLOSURE, true)
                .childOption(ChannelOption.TCP_NODELAY, true)
                .handle((in, out) -> {
                    Sinks.One<Connection> client = Sinks.one();
                    in.withConnection(client::tryEmitValue);
                    return client.asMono().flatMap(this::accept);
                })
                .bindNow(LONGEST_START);
    }

    /**
     * Where it listens: the address of the loopback interface.
     *
     * @return the host for clients
     */
    public String host() {
        return InetAddress.getLoopbackAddress().getHostAddress();
    }

    /**
     * Where it listens.
     *
     * @return the port for clients
     */
    public int port() {
        return port;
    }

    // connections ----------------------------------------------------------------------------------------------------

    private Mono<Void> accept(Connection client) {
        clients.add(client);
        client.onDispose(() -> clients.remove(client));
        accepted.incrementAndGet();
        if (closed) {
            client.dispose();
        }
        Sinks.Empty<Void> held = entrance;
        Mono<Void> admitted = held == null ? Mono.empty() : held.asMono();
        return admitted.then(Mono.defer(this::connect))
                .doOnError(refused -> ProxiedConnection.reset(client.channel()))
                .flatMap(server -> ProxiedConnection.between(this, client, server))
                .onErrorComplete();
    }

    private Mono<? extends Connection> connect() {
        return TcpClient.newConnection()
                .runOn(THREAD, false)
                .host(serverHost)
                .port(serverPort)
                .option(ChannelOption.ALLOW_HALF_CLOSURE, true)
                .option(ChannelOption.TCP_NODELAY, true)
                .connect();
    }

    void add(ProxiedConnection connection) {
        connections.add(connection);
        if (closed) {
            connection.close();
        }
    }

    void remove(ProxiedConnection connection) {
        connections.remove(connection);
        armed.forEach(fault -> fault.forget(connection));
    }

    // newcomers ------------------------------------------------------------------------------------------------------

    /**
     * Connections that clients make from now on are accepted, but get no further until {@link #letNewcomersIn} or {@link #heal}. To the client it looks
     * like a server that does not answer.
     */
    public synchronized void holdNewcomers() {
        if (entrance == null) {
            entrance = Sinks.empty();
        }
    }

    /** Connections that clients make from now on are refused by the operating system, until {@link #letNewcomersIn} or {@link #heal}. */
    public synchronized void refuseNewcomers() {
        DisposableServer open = listener;
        listener = null;
        if (open != null) {
            open.disposeNow(LONGEST_START);
            awaitTurnOf(open.channel().eventLoop());
        }
    }

    /** A JVM closes a socket that is being selected from only with the next selection, which comes before the inner task. */
    private static void awaitTurnOf(EventLoop loop) {
        loop.submit(() -> loop.schedule(() -> {}, 1, TimeUnit.NANOSECONDS))
                .syncUninterruptibly()
                .getNow()
                .syncUninterruptibly();
    }

    /** Lets in those that were held, and those that come, on the same port as before. */
    public synchronized void letNewcomersIn() {
        if (listener == null && !closed) {
            listener = bind(port);
        }
        Sinks.Empty<Void> held = entrance;
        entrance = null;
        if (held != null) {
            held.tryEmitEmpty();
        }
    }

    // faults ---------------------------------------------------------------------------------------------------------

    /**
     * Strikes every connection that there is, at once. Later ones are not affected.
     *
     * @param fault what happens to them
     */
    public void strike(NetworkFault fault) {
        Objects.requireNonNull(fault, "fault");
        connections.forEach(connection -> connection.strike(fault));
    }

    /**
     * Strikes once, when the moment comes: the connection on which it comes, or {@linkplain NetworkTrigger#everywhere every one}.
     * Any number of faults can wait for their moments.
     *
     * @param trigger the moment
     * @param fault what happens then
     * @return completes when it has struck, on the proxy's thread, which must not be blocked; fails with {@link
     *     IllegalStateException} if the proxy is healed or closed before. The fault does not depend on a subscription to it.
     */
    public Mono<Void> strikeWhen(NetworkTrigger trigger, NetworkFault fault) {
        return arm(new ArmedFault(Objects.requireNonNull(trigger, "trigger"), Objects.requireNonNull(fault, "fault")));
    }

    /**
     * Waits for a moment at which nothing is done to the connection.
     *
     * @param trigger the moment
     * @return completes just before what the trigger looks for is passed on, on the proxy's thread, which must not be blocked;
     *     fails with {@link IllegalStateException} if the proxy is healed or closed before. It looks from now on, whether or not
     *     there is a subscription to it.
     */
    public Mono<Void> await(NetworkTrigger trigger) {
        return arm(new ArmedFault(Objects.requireNonNull(trigger, "trigger"), null));
    }

    private Mono<Void> arm(ArmedFault fault) {
        armed.add(fault);
        return fault.whenStruck();
    }

    List<ArmedFault> armed() {
        return armed;
    }

    /** The moment has come on a connection. */
    void strike(ArmedFault due, ProxiedConnection connection) {
        armed.remove(due);
        NetworkFault fault = due.fault();
        if (fault != null) {
            connection.strike(fault);
            if (due.isEverywhere()) {
                strike(fault);
            }
        }
        due.struck();
    }

    /**
     * Ends every fault, as when a network comes back: nothing is armed any more, newcomers are let in, there is no latency and no limit of bandwidth,
     * and what was stalled goes on. A connection of which something was lost is reset on both sides.
     *
     * <p>Waits for the operating system if newcomers were refused.
     */
    public void heal() {
        disarm();
        requests = NetworkShape.NONE;
        answers = NetworkShape.NONE;
        letNewcomersIn();
        connections.forEach(ProxiedConnection::heal);
    }

    private void disarm() {
        for (ArmedFault fault : armed) {
            armed.remove(fault);
            fault.disarm();
        }
    }

    // speed ----------------------------------------------------------------------------------------------------------

    /**
     * Lets everything arrive later that is sent from now on, at the same rate: for a round trip, the sum of both. Accurate to a millisecond or two, the
     * resolution of the timers.
     *
     * @param towardsServer how much later what the client sends arrives; zero by default
     * @param towardsClient how much later what the server sends arrives; zero by default
     * @throws IllegalArgumentException if one is negative
     */
    public synchronized void latency(Duration towardsServer, Duration towardsClient) {
        NetworkShape before = requests.withLatency(Objects.requireNonNull(towardsServer, "towardsServer"));
        answers = answers.withLatency(Objects.requireNonNull(towardsClient, "towardsClient"));
        requests = before;
    }

    /**
     * Bounds how many bytes each connection carries in a second.
     *
     * @param towardsServer the bytes per second that the client can send, or zero for no bound, which is the default
     * @param towardsClient the bytes per second that the server can send, or zero for no bound, which is the default
     * @throws IllegalArgumentException if one is negative
     */
    public synchronized void bandwidth(long towardsServer, long towardsClient) {
        NetworkShape before = requests.withBytesPerSecond(towardsServer);
        answers = answers.withBytesPerSecond(towardsClient);
        requests = before;
    }

    NetworkShape shape(boolean fromClient) {
        return fromClient ? requests : answers;
    }

    // counters -------------------------------------------------------------------------------------------------------

    /**
     * How many connections clients have made so far, those included that were held.
     *
     * @return the number of connections
     */
    public long accepted() {
        return accepted.get();
    }

    /**
     * How many connections are carried from a client to the server now, those included that a fault has silenced.
     *
     * @return the number of connections
     */
    public int open() {
        return connections.size();
    }

    /**
     * How many bytes have passed towards the server so far, on all connections.
     *
     * @return the number of bytes
     */
    public long requestBytes() {
        return requestBytes.get();
    }

    /**
     * How many bytes have passed towards the clients so far, on all connections.
     *
     * @return the number of bytes
     */
    public long answerBytes() {
        return answerBytes.get();
    }

    /**
     * How many bytes were read from one side and thrown away by a fault so far, on all connections.
     *
     * @return the number of bytes
     */
    public long lostBytes() {
        return lostBytes.get();
    }

    /**
     * How often the server has answered so far, on all connections: each time that it sent something after the client had. What is pipelined counts
     * once if it all passed before the first answer, of which a latency of some milliseconds makes sure.
     *
     * @return the number of round trips
     */
    public long roundTrips() {
        return roundTrips.get();
    }

    void passed(boolean fromClient, int bytes) {
        (fromClient ? requestBytes : answerBytes).addAndGet(bytes);
    }

    void lost(int bytes) {
        lostBytes.addAndGet(bytes);
    }

    void roundTripEnded() {
        roundTrips.incrementAndGet();
    }

    /** Closes every connection and the listening socket. Closing it again does nothing. */
    @Override
    public void close() {
        closed = true;
        refuseNewcomers();
        disarm();
        connections.forEach(ProxiedConnection::close);
        clients.forEach(Connection::dispose);
    }

    @Override
    public String toString() {
        return "FaultyProxy[" + host() + ":" + port + " -> " + serverHost + ":" + serverPort + "]";
    }
}
