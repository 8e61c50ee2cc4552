package dev.r2dbcscope.testkit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.ConnectException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketException;
import java.net.SocketTimeoutException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Mono;

@Timeout(120)
class FaultyProxyTest {

    private static final Duration LONG = Duration.ofSeconds(60);

    private final Peers peers = new Peers();
    private final FaultyProxy proxy = peers.proxy();
    private final List<Socket> sockets = new ArrayList<>();

    @AfterEach
    void close() throws IOException {
        proxy.close();
        awaitOpen(0);
        for (Socket socket : sockets) {
            socket.close();
        }
        peers.close();
    }

    private Socket client() throws IOException {
        Socket client = Peers.connect(proxy);
        sockets.add(client);
        return client;
    }

    private Socket server() throws InterruptedException {
        Socket server = peers.next();
        sockets.add(server);
        return server;
    }

    private void awaitOpen(int connections) {
        await(() -> proxy.open() == connections, "open: " + connections);
    }

    private static void await(java.util.function.BooleanSupplier condition, String what) {
        long start = System.nanoTime();
        while (!condition.getAsBoolean()) {
            assertThat(Duration.ofNanos(System.nanoTime() - start)).as(what).isLessThan(LONG);
            Thread.onSpinWait();
        }
    }

    private static void ping(Socket client, Socket server) throws IOException {
        Peers.send(client, "ping");
        assertThat(Peers.receive(server, 4)).isEqualTo("ping");
        Peers.send(server, "pong!");
        assertThat(Peers.receive(client, 5)).isEqualTo("pong!");
    }

    /** A round trip on another connection: what was sent before it has been carried, or will not be. */
    private void pingOnAnother() throws Exception {
        Socket client = client();
        ping(client, server());
    }

    private static void assertSilent(Socket socket) throws IOException {
        int before = socket.getSoTimeout();
        socket.setSoTimeout(50);
        assertThatThrownBy(() -> socket.getInputStream().read()).isInstanceOf(SocketTimeoutException.class);
        socket.setSoTimeout(before);
    }

    /** A failure does not print them. */
    private static void assertSame(byte[] received, byte[] sent) {
        assertThat(received.length).isEqualTo(sent.length);
        assertThat(java.util.Arrays.equals(received, sent)).isTrue();
    }

    private static void assertReset(Socket socket) {
        assertThatThrownBy(() -> socket.getInputStream().readAllBytes())
                .isInstanceOf(SocketException.class)
                .hasMessageContaining("reset");
    }

    private static CompletableFuture<Void> inBackground(byte[] bytes, Socket to) {
        return CompletableFuture.runAsync(() -> {
            try {
                to.getOutputStream().write(bytes);
                to.shutdownOutput();
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        });
    }

    private boolean isRefused() {
        try (Socket socket = new Socket(InetAddress.getLoopbackAddress(), peers.port())) {
            return !socket.isConnected();
        } catch (IOException refused) {
            return true;
        }
    }

    @Nested
    class WithoutAFault {

        @Test
        void carriesBothWaysAndCounts() throws Exception {
            Socket client = client();
            Socket server = server();
            for (int i = 0; i < 3; i++) {
                ping(client, server);
            }
            assertThat(proxy.accepted()).isEqualTo(1);
            assertThat(proxy.open()).isEqualTo(1);
            assertThat(proxy.requestBytes()).isEqualTo(12);
            assertThat(proxy.answerBytes()).isEqualTo(15);
            assertThat(proxy.roundTrips()).isEqualTo(3);
            assertThat(proxy.lostBytes()).isZero();
        }

        @Test
        void anAnswerInPiecesIsOneRoundTrip() throws Exception {
            Socket client = client();
            Socket server = server();
            Peers.send(server, "hello");
            assertThat(Peers.receive(client, 5)).isEqualTo("hello");
            assertThat(proxy.roundTrips()).isZero();
            Peers.send(client, "?");
            assertThat(Peers.receive(server, 1)).isEqualTo("?");
            for (String piece : List.of("one", "two", "six")) {
                Peers.send(server, piece);
                assertThat(Peers.receive(client, 3)).isEqualTo(piece);
            }
            assertThat(proxy.roundTrips()).isEqualTo(1);
        }

        @Test
        void carriesTheEndOfOneDirectionAlone() throws Exception {
            Socket client = client();
            Socket server = server();
            Peers.send(client, "request");
            client.shutdownOutput();
            assertThat(Peers.receiveAll(server)).isEqualTo("request");
            Peers.send(server, "answer");
            server.close();
            assertThat(Peers.receiveAll(client)).isEqualTo("answer");
            awaitOpen(0);
        }

        @Test
        void carriesAllThatWasSentBeforeTheEnd() throws Exception {
            byte[] bytes = new byte[20 << 20];
            new Random(3).nextBytes(bytes);
            Socket client = client();
            client.shutdownOutput();
            Socket server = server();
            CompletableFuture<Void> sent = inBackground(bytes, server);
            await(() -> proxy.answerBytes() > 1_000_000, "the first bytes");
            assertSame(client.getInputStream().readAllBytes(), bytes);
            sent.join();
            awaitOpen(0);
        }

        @Test
        void carriesAReset() throws Exception {
            Socket client = client();
            Socket server = server();
            ping(client, server);
            client.setSoLinger(true, 0);
            client.close();
            assertReset(server);
            awaitOpen(0);
        }

        @Test
        void tellsTheServerThatTheClientHasGoneWhileItSends() throws Exception {
            Socket client = client();
            Socket server = server();
            ping(client, server);
            client.close();
            assertThatThrownBy(() -> {
                        while (true) {
                            Peers.send(server, "more ".repeat(1_000));
                        }
                    })
                    .isInstanceOf(SocketException.class);
            awaitOpen(0);
        }

        @Test
        void resetsTheClientIfThereIsNoServer() throws Exception {
            peers.close();
            await(FaultyProxyTest.this::isRefused, "end of the server, whose socket outlives its thread for a moment");
            assertThatThrownBy(() -> client().getInputStream().read()).isInstanceOf(SocketException.class);
        }

        /** The reset may come before the proxy has joined the two connections. */
        @Test
        void resetsTheClientOfAServerThatResetsAtOnce() throws Exception {
            try (ServerSocket rude = new ServerSocket(0, 50, InetAddress.getLoopbackAddress())) {
                CompletableFuture<Void> resetting = CompletableFuture.runAsync(() -> {
                    try {
                        while (true) {
                            Socket accepted = rude.accept();
                            accepted.setSoLinger(true, 0);
                            accepted.close();
                        }
                    } catch (IOException closed) {
                        // the end of the test
                    }
                });
                try (FaultyProxy behind = FaultyProxy.to(rude.getInetAddress().getHostAddress(), rude.getLocalPort())) {
                    for (int i = 0; i < 1_000; i++) {
                        try (Socket client = new Socket(behind.host(), behind.port())) {
                            client.setSoTimeout(60_000);
                            assertThatThrownBy(() -> client.getInputStream().read())
                                    .as("client %d", i)
                                    .isInstanceOf(SocketException.class);
                        }
                    }
                }
                assertThat(resetting).isNotDone();
            }
        }

        @Test
        void readsNoFasterThanTheOtherSideTakesIt() throws Exception {
            Socket client = client();
            client.setSendBufferSize(65_536);
            Socket server = server();
            byte[] bytes = new byte[64 << 20];
            new Random(1).nextBytes(bytes);
            AtomicLong seen = new AtomicLong(-1);
            CompletableFuture<Void> sent = inBackground(bytes, client);
            await(
                    () -> {
                        long before = seen.getAndSet(proxy.requestBytes());
                        java.util.concurrent.locks.LockSupport.parkNanos(50_000_000);
                        return before > 0 && before == proxy.requestBytes();
                    },
                    "standstill");
            assertThat(sent).isNotDone();
            assertSame(server.getInputStream().readAllBytes(), bytes);
            sent.join();
        }

        @Test
        void listensOnAGivenPortToo() throws Exception {
            int port = proxy.port();
            proxy.close();
            try (FaultyProxy again = FaultyProxy.to("127.0.0.1", peers.port(), port);
                    Socket client = Peers.connect(again)) {
                assertThat(again.port()).isEqualTo(port);
                ping(client, server());
                assertThat(again).hasToString("FaultyProxy[127.0.0.1:" + port + " -> 127.0.0.1:" + peers.port() + "]");
            }
        }

        @Test
        void endsItsConnectionsWhenItIsClosed() throws Exception {
            Socket client = client();
            Socket server = server();
            ping(client, server);
            proxy.holdNewcomers();
            Socket held = client();
            proxy.close();
            proxy.close();
            assertThat(Peers.drain(client)).isZero();
            assertThat(Peers.drain(server)).isZero();
            assertThat(Peers.drain(held)).isZero();
            assertThatThrownBy(() -> client()).isInstanceOf(ConnectException.class);
        }
    }

    @Nested
    class AFault {

        @Test
        void cutEndsBothSides() throws Exception {
            Socket client = client();
            Socket server = server();
            ping(client, server);
            proxy.strike(NetworkFault.CUT);
            assertThat(client.getInputStream().read()).isEqualTo(-1);
            assertThat(server.getInputStream().read()).isEqualTo(-1);
            awaitOpen(0);
        }

        @Test
        void resetEndsBothSidesWithAnError() throws Exception {
            Socket client = client();
            Socket server = server();
            ping(client, server);
            proxy.strike(NetworkFault.RESET);
            assertReset(client);
            assertReset(server);
            awaitOpen(0);
        }

        @Test
        void halfOpenEndsTheServersSideAlone() throws Exception {
            Socket client = client();
            Socket server = server();
            ping(client, server);
            proxy.strike(NetworkFault.HALF_OPEN);
            assertThat(server.getInputStream().read()).isEqualTo(-1);
            Peers.send(client, "anybody?");
            await(() -> proxy.lostBytes() == 8, "8 bytes lost");
            assertSilent(client);
            client.close();
            awaitOpen(0);
        }

        @Test
        void blackHoleSwallowsEverything() throws Exception {
            Socket client = client();
            Socket server = server();
            ping(client, server);
            proxy.strike(NetworkFault.BLACK_HOLE);
            Peers.send(client, "request");
            Peers.send(server, "answer");
            await(() -> proxy.lostBytes() == 13, "13 bytes lost");
            pingOnAnother();
            client.close();
            assertSilent(server);
            assertThat(proxy.open()).isEqualTo(2);
            proxy.heal();
            assertReset(server);
            pingOnAnother();
        }

        @Test
        void canLoseTheRequestsAlone() throws Exception {
            Socket client = client();
            Socket server = server();
            proxy.strikeWhen(NetworkTrigger.afterClientBytes(0), NetworkFault.REQUESTS_LOST);
            Peers.send(client, "request");
            await(() -> proxy.lostBytes() == 7, "7 bytes lost");
            Peers.send(server, "answer");
            assertThat(Peers.receive(client, 6)).isEqualTo("answer");
            assertSilent(server);
            proxy.heal();
            assertReset(client);
        }

        @Test
        void canLoseTheAnswersAlone() throws Exception {
            Socket client = client();
            Socket server = server();
            ping(client, server);
            proxy.strike(NetworkFault.ANSWERS_LOST);
            Peers.send(client, "request");
            assertThat(Peers.receive(server, 7)).isEqualTo("request");
            Peers.send(server, "answer");
            await(() -> proxy.lostBytes() == 6, "6 bytes lost");
            assertSilent(client);
            client.close();
            assertThat(server.getInputStream().read()).as("the end passes").isEqualTo(-1);
        }

        @Test
        void stallKeepsEverythingBackUntilItIsHealed() throws Exception {
            Socket client = client();
            Socket server = server();
            ping(client, server);
            proxy.strike(NetworkFault.STALL);
            Peers.send(client, "request");
            Peers.send(server, "answer");
            client.shutdownOutput();
            pingOnAnother();
            assertThat(proxy.requestBytes()).isEqualTo(8);
            assertSilent(server);
            proxy.heal();
            assertThat(Peers.receiveAll(server)).isEqualTo("request");
            assertThat(Peers.receive(client, 6)).isEqualTo("answer");
        }

        @Test
        void answersCanBeStalledAlone() throws Exception {
            Socket client = client();
            Socket server = server();
            ping(client, server);
            proxy.strike(NetworkFault.ANSWERS_STALLED);
            Peers.send(server, "answer");
            Peers.send(client, "request");
            assertThat(Peers.receive(server, 7)).isEqualTo("request");
            assertSilent(client);
            proxy.heal();
            assertThat(Peers.receive(client, 6)).isEqualTo("answer");
        }
    }

    @Nested
    class AMoment {

        @ParameterizedTest
        @CsvSource({
            "true, 0", "true, 1", "true, 1000", "true, 100000", "true, 2500000",
            "false, 0", "false, 1", "false, 1000", "false, 100000", "false, 2500000"
        })
        void comesAtExactlyOneByte(boolean fromClient, int bytes) throws Exception {
            Socket client = client();
            Socket server = server();
            ping(client, server);
            Mono<Void> struck = proxy.strikeWhen(
                    fromClient ? NetworkTrigger.afterClientBytes(bytes) : NetworkTrigger.afterServerBytes(bytes),
                    NetworkFault.CUT);
            CompletableFuture<Void> sent = inBackground(new byte[3_000_000], fromClient ? client : server);
            assertThat(Peers.drain(fromClient ? server : client)).isEqualTo(bytes);
            struck.block(LONG);
            assertThat(sent.handle((ok, error) -> "ended")).succeedsWithin(LONG);
        }

        @Test
        void doesNotComeBeforeThatByte() throws Exception {
            Socket client = client();
            Socket server = server();
            Mono<Void> struck = proxy.strikeWhen(NetworkTrigger.afterClientBytes(8), NetworkFault.RESET);
            ping(client, server);
            ping(client, server);
            Peers.send(client, "!");
            assertReset(client);
            struck.block(LONG);
            assertThat(proxy.requestBytes()).isEqualTo(8);
        }

        @Test
        void countsEachConnectionByItself() throws Exception {
            Socket one = client();
            Socket oneServer = server();
            proxy.strikeWhen(NetworkTrigger.afterClientBytes(4), NetworkFault.CUT);
            ping(one, oneServer);
            Socket two = client();
            Socket twoServer = server();
            ping(two, twoServer);
            Peers.send(two, "more");
            assertThat(two.getInputStream().read()).isEqualTo(-1);
            ping(one, oneServer);
        }

        @Test
        void comesWithAWordThatDoesNotPass() throws Exception {
            Socket client = client();
            Socket server = server();
            Mono<Void> struck = proxy.strikeWhen(NetworkTrigger.clientSends("COMMIT"), NetworkFault.CUT);
            Peers.send(client, "COMM ITCOMCOMMIT after");
            assertThat(Peers.receiveAll(server)).isEqualTo("COMM ITCOM");
            struck.block(LONG);
        }

        @ParameterizedTest
        @ValueSource(strings = {"aab", "aaab", "abab", "a", "aaaa"})
        void findsAWordThatComesByteByByte(String word) throws Exception {
            Socket client = client();
            Socket server = server();
            proxy.strikeWhen(NetworkTrigger.serverSends(word), NetworkFault.CUT);
            String text = "aababaaabaaaab";
            int end = text.indexOf(word) + word.length();
            StringBuilder received = new StringBuilder();
            for (int i = 0; i < end - 1; i++) {
                Peers.send(server, text.substring(i, i + 1));
                received.append(Peers.receive(client, 1));
            }
            Peers.send(server, text.substring(end - 1, end));
            assertThat(client.getInputStream().read()).isEqualTo(-1);
            assertThat(received).hasToString(text.substring(0, end - 1));
        }

        @Test
        void strikesOneConnectionOnceUnlessItIsToldOtherwise() throws Exception {
            Socket one = client();
            Socket oneServer = server();
            Socket two = client();
            Socket twoServer = server();
            proxy.strikeWhen(NetworkTrigger.clientSends("x"), NetworkFault.CUT);
            Peers.send(one, "x");
            assertThat(one.getInputStream().read()).isEqualTo(-1);
            Peers.send(two, "x");
            assertThat(Peers.receive(twoServer, 1)).isEqualTo("x");

            Socket three = client();
            server();
            proxy.strikeWhen(NetworkTrigger.clientSends("x").everywhere(), NetworkFault.CUT);
            Peers.send(three, "x");
            assertThat(three.getInputStream().read()).isEqualTo(-1);
            assertThat(two.getInputStream().read()).isEqualTo(-1);
            assertThat(oneServer.getInputStream().read()).isEqualTo(-1);
        }

        @Test
        void canBeAwaitedWithoutHarm() throws Exception {
            Socket client = client();
            Socket server = server();
            Mono<Void> seen = proxy.await(NetworkTrigger.clientSends("word"));
            Mono<Void> struck = proxy.strikeWhen(NetworkTrigger.clientSends("word"), NetworkFault.ANSWERS_LOST);
            Peers.send(client, "a word");
            assertThat(Peers.receive(server, 6)).isEqualTo("a word");
            seen.block(LONG);
            struck.block(LONG);
            Peers.send(server, "answer");
            await(() -> proxy.lostBytes() == 6, "6 bytes lost");
        }

        @Test
        void thatNeverCameFailsWhenTheProxyIsHealedOrClosed() throws Exception {
            Mono<Void> healed = proxy.strikeWhen(NetworkTrigger.clientSends("x"), NetworkFault.CUT);
            proxy.heal();
            assertThatThrownBy(() -> healed.block(LONG))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageContaining("the client sends \"x\"");
            Socket client = client();
            Socket server = server();
            Peers.send(client, "x");
            assertThat(Peers.receive(server, 1)).isEqualTo("x");

            Mono<Void> closed = proxy.await(NetworkTrigger.afterServerBytes(7).everywhere());
            proxy.close();
            assertThatThrownBy(() -> closed.block(LONG))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageContaining("when the server sends more than 7 bytes, on every connection");
        }

        @Test
        void canBeChosenByASeed() {
            Set<String> moments = new HashSet<>();
            for (int seed = 0; seed < 200; seed++) {
                String moment = NetworkTrigger.seeded(seed, 5_000).toString();
                assertThat(NetworkTrigger.seeded(seed, 5_000)).hasToString(moment);
                assertThat(Integer.parseInt(moment.replaceAll("\\D", ""))).isBetween(0, 4_999);
                moments.add(moment);
            }
            assertThat(moments).hasSizeGreaterThan(80);
            assertThat(moments).anyMatch(moment -> moment.contains("client"));
            assertThat(moments).anyMatch(moment -> moment.contains("server"));
        }

        @Test
        void isNeverNonsense() {
            assertThatThrownBy(() -> NetworkTrigger.clientSends("")).isInstanceOf(IllegalArgumentException.class);
            assertThatThrownBy(() -> NetworkTrigger.afterServerBytes(-1))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("-1");
            assertThatThrownBy(() -> NetworkTrigger.seeded(1, 0)).isInstanceOf(IllegalArgumentException.class);
        }
    }

    @Nested
    class Newcomers {

        @Test
        void canBeRefusedAndLetInAgain() throws Exception {
            Socket client = client();
            Socket server = server();
            proxy.refuseNewcomers();
            assertThatThrownBy(() -> client()).isInstanceOf(ConnectException.class);
            ping(client, server);
            proxy.letNewcomersIn();
            pingOnAnother();
        }

        @Test
        void canBeHeld() throws Exception {
            Socket client = client();
            Socket server = server();
            proxy.holdNewcomers();
            Socket held = client();
            Peers.send(held, "hello");
            ping(client, server);
            assertSilent(held);
            assertThat(peers.nextIfAny()).isNull();
            proxy.letNewcomersIn();
            assertThat(Peers.receive(server(), 5)).isEqualTo("hello");
            pingOnAnother();
        }

        @ParameterizedTest
        @ValueSource(booleans = {false, true})
        void areLetInWhenItIsHealed(boolean refused) throws Exception {
            if (refused) {
                proxy.refuseNewcomers();
            } else {
                proxy.holdNewcomers();
            }
            proxy.heal();
            pingOnAnother();
        }

        @ParameterizedTest
        @EnumSource(NetworkFault.class)
        void areNotStruckByWhatStruckOthers(NetworkFault fault) throws Exception {
            Socket client = client();
            ping(client, server());
            proxy.strike(fault);
            pingOnAnother();
        }
    }

    @Nested
    class Slowness {

        @Test
        void delaysEachDirection() throws Exception {
            Socket client = client();
            Socket server = server();
            proxy.latency(Duration.ofMillis(20), Duration.ofMillis(30));
            long start = System.nanoTime();
            ping(client, server);
            ping(client, server);
            assertThat(Duration.ofNanos(System.nanoTime() - start)).isGreaterThan(Duration.ofMillis(95));
            client.shutdownOutput();
            assertThat(server.getInputStream().read()).isEqualTo(-1);
        }

        @Test
        void ofALongWayDoesNotMakeItNarrow() throws Exception {
            Socket client = client();
            Socket server = server();
            proxy.latency(Duration.ofMillis(200), Duration.ZERO);
            long start = System.nanoTime();
            for (int i = 0; i < 300; i++) {
                Peers.send(client, "x");
            }
            assertThat(Peers.receive(server, 300)).hasSize(300);
            assertThat(Duration.ofNanos(System.nanoTime() - start))
                    .as("300 pieces, one after the other, would take a minute")
                    .isBetween(Duration.ofMillis(195), Duration.ofSeconds(30));
        }

        @Test
        void canBeABandwidth() throws Exception {
            Socket client = client();
            Socket server = server();
            proxy.bandwidth(0, 1_000_000);
            byte[] bytes = new byte[200_000];
            new Random(2).nextBytes(bytes);
            long start = System.nanoTime();
            inBackground(bytes, server);
            assertSame(client.getInputStream().readAllBytes(), bytes);
            assertThat(Duration.ofNanos(System.nanoTime() - start)).isGreaterThan(Duration.ofMillis(180));
            proxy.heal();
            assertThatThrownBy(() -> proxy.bandwidth(-1, 0)).isInstanceOf(IllegalArgumentException.class);
            assertThatThrownBy(() -> proxy.latency(Duration.ZERO, Duration.ofNanos(-1)))
                    .isInstanceOf(IllegalArgumentException.class);
        }

        @Test
        void doesNotMoveTheMoment() throws Exception {
            Socket client = client();
            Socket server = server();
            proxy.latency(Duration.ofMillis(5), Duration.ofMillis(5));
            proxy.bandwidth(1_000_000, 1_000_000);
            proxy.strikeWhen(NetworkTrigger.afterClientBytes(12_345), NetworkFault.CUT);
            CompletableFuture<Void> sent = inBackground(new byte[30_000], client);
            assertThat(Peers.drain(server)).isEqualTo(12_345);
            assertThat(sent.handle((ok, error) -> "ended")).succeedsWithin(LONG);
        }
    }
}
