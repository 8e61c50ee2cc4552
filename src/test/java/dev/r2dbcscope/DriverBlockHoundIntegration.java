package dev.r2dbcscope;

import reactor.blockhound.BlockHound;
import reactor.blockhound.integration.BlockHoundIntegration;

/**
 * Allows what Netty and the PostgreSQL driver do by themselves on an event loop; an error there costs the driver its
 * connection.
 *
 * <p>Netty's default allocator takes a lock of its own for an instant when threads contend (4.2.15; Netty's integration
 * does not allow it), and the driver reads the operating system's random numbers when it answers a password request.
 */
public final class DriverBlockHoundIntegration implements BlockHoundIntegration {

    @Override
    public void applyTo(BlockHound.Builder builder) {
        builder.allowBlockingCallsInside("io.netty.buffer.AdaptivePoolingAllocator$MagazineGroup", "tryExpandMagazines")
                .allowBlockingCallsInside("io.netty.buffer.AdaptivePoolingAllocator$Magazine", "free")
                .allowBlockingCallsInside("com.ongres.scram.common.ScramFunctions", "nonce");
    }
}
