package dev.r2dbcscope.testkit;

import io.netty.buffer.Unpooled;
import io.netty.channel.Channel;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelFutureListener;
import io.netty.channel.ChannelOption;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.netty.Connection;

/** A client's connection to the proxy, and the proxy's to the server. */
final class ProxiedConnection {

    private final FaultyProxy proxy;
    private final Channel client;
    private final Channel server;
    private final ProxiedStream requests;
    private final ProxiedStream answers;
    private final Sinks.Empty<Void> over = Sinks.empty();
    private boolean hasSpoken;

    private ProxiedConnection(FaultyProxy proxy, Channel client, Channel server) {
        this.proxy = proxy;
        this.client = client;
        this.server = server;
        this.requests = new ProxiedStream(this, client, server, true);
        this.answers = new ProxiedStream(this, server, client, false);
    }

    /** Carries what both sides send; completes when both connections are closed. */
    static Mono<Void> between(FaultyProxy proxy, Connection client, Connection server) {
        return Mono.defer(() -> {
            ProxiedConnection connection = new ProxiedConnection(proxy, client.channel(), server.channel());
            proxy.add(connection);
            client.addHandlerFirst(connection.requests);
            server.addHandlerFirst(connection.answers);
            connection.client.closeFuture().addListener(closed -> connection.socketClosed());
            connection.server.closeFuture().addListener(closed -> connection.socketClosed());
            connection.pump();
            if (!connection.client.isActive() || !connection.server.isActive()) {
                connection.end(NetworkFault.Ending.RESET); // it was over before there was somebody to hear of it
            }
            return connection.over.asMono();
        });
    }

    FaultyProxy proxy() {
        return proxy;
    }

    ProxiedStream opposite(ProxiedStream stream) {
        return stream == requests ? answers : requests;
    }

    /** On any thread: nothing passes any more that must not, and the sockets follow. */
    void strike(NetworkFault fault) {
        if (fault.losesRequests()) {
            requests.lose();
        }
        if (fault.losesAnswers()) {
            answers.lose();
        }
        if (fault.stallsRequests()) {
            requests.stall(true);
        }
        if (fault.stallsAnswers()) {
            answers.stall(true);
        }
        onItsThread(() -> end(fault.ending()));
    }

    /** On any thread: what was kept back goes on; what cannot go on, because a part of it is lost, is reset. */
    void heal() {
        requests.stall(false);
        answers.stall(false);
        onItsThread(() -> {
            if (requests.isLost() || answers.isLost()) {
                end(NetworkFault.Ending.RESET);
            }
        });
    }

    /** On any thread. */
    void close() {
        requests.lose();
        answers.lose();
        onItsThread(() -> {
            client.close();
            server.close();
        });
    }

    private void onItsThread(Runnable task) {
        if (client.eventLoop().inEventLoop()) {
            task.run();
        } else {
            client.eventLoop().execute(() -> {
                task.run();
                pump();
            });
        }
    }

    private void pump() {
        requests.pump();
        answers.pump();
    }

    private void end(NetworkFault.Ending ending) {
        switch (ending) {
            case NONE -> {}
            case CLOSE -> {
                closeBehindWhatPassed(client);
                closeBehindWhatPassed(server);
            }
            case CLOSE_SERVER -> closeBehindWhatPassed(server);
            case RESET -> {
                reset(client);
                reset(server);
            }
        }
    }

    private static void closeBehindWhatPassed(Channel channel) {
        behindWhatPassed(channel).addListener(ChannelFutureListener.CLOSE);
    }

    /** Completes when the operating system has taken what was sent before; Netty would throw away what waits for that. */
    static ChannelFuture behindWhatPassed(Channel channel) {
        return channel.writeAndFlush(Unpooled.EMPTY_BUFFER);
    }

    static void reset(Channel channel) {
        if (channel.isOpen()) {
            channel.config().setOption(ChannelOption.SO_LINGER, 0);
            channel.close();
        }
    }

    /** One side has reset its connection. */
    void broken(ProxiedStream stream) {
        if (stream.isLost()) {
            close(stream);
        } else {
            end(NetworkFault.Ending.RESET);
        }
    }

    private void close(ProxiedStream stream) {
        (stream == requests ? client : server).close();
    }

    /** One side's connection has been closed altogether, so that nothing can be sent to it any more. */
    void gone(ProxiedStream stream) {
        if (!stream.isLost() && !opposite(stream).hasEnded()) {
            reset(stream == requests ? server : client);
        }
    }

    void endPassed() {
        if (requests.hasEnded() && answers.hasEnded()) {
            end(NetworkFault.Ending.CLOSE);
        }
    }

    private void socketClosed() {
        if (!client.isOpen() && !server.isOpen()) {
            proxy.remove(this);
            over.tryEmitEmpty();
        }
    }

    void passed(boolean fromClient, int length) {
        proxy.passed(fromClient, length);
        if (fromClient) {
            hasSpoken = true;
        } else if (hasSpoken) {
            hasSpoken = false;
            proxy.roundTripEnded();
        }
    }
}
