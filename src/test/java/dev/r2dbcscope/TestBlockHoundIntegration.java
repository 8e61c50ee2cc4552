package dev.r2dbcscope;

import reactor.blockhound.BlockHound;
import reactor.blockhound.integration.BlockHoundIntegration;

/**
 * Allows what others than the library do on a thread that must not block.
 *
 * <p>Netty's default allocator takes a lock of its own for an instant when threads contend (4.2.15; Netty's integration
 * does not allow it), and the driver reads the operating system's random numbers when it answers a password request: an
 * error there costs the driver its connection. The subscribers of the Reactive Streams TCK keep their signals in a queue
 * with a lock, for which they contend with the test that waits: an error there costs them the signal, and looks as if the
 * publisher had lost it.
 */
public final class TestBlockHoundIntegration implements BlockHoundIntegration {

    @Override
    public void applyTo(BlockHound.Builder builder) {
        builder.allowBlockingCallsInside("io.netty.buffer.AdaptivePoolingAllocator$MagazineGroup", "tryExpandMagazines")
                .allowBlockingCallsInside("io.netty.buffer.AdaptivePoolingAllocator$Magazine", "free")
                .allowBlockingCallsInside("com.ongres.scram.common.ScramFunctions", "nonce")
                .allowBlockingCallsInside("org.reactivestreams.tck.TestEnvironment$Receptacle", "add")
                .allowBlockingCallsInside("org.reactivestreams.tck.TestEnvironment$Receptacle", "complete")
                .allowBlockingCallsInside("org.reactivestreams.tck.TestEnvironment$Promise", "complete");
    }
}
