package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import ch.qos.logback.classic.Logger;
import ch.qos.logback.classic.spi.ILoggingEvent;
import ch.qos.logback.core.AppenderBase;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufAllocator;
import io.netty.util.ResourceLeakDetector;
import java.lang.ref.PhantomReference;
import java.lang.ref.Reference;
import java.lang.ref.ReferenceQueue;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import org.junit.jupiter.api.extension.AfterEachCallback;
import org.junit.jupiter.api.extension.BeforeEachCallback;
import org.junit.jupiter.api.extension.ExtensionContext;
import org.slf4j.LoggerFactory;

/** Has Netty watch every buffer during a test, and hears of those that were lost without having been released. */
final class LostBuffers implements BeforeEachCallback, AfterEachCallback {

    private static final Duration BOUND = Duration.ofSeconds(60);
    private static final String STAGED = "staged by the test";

    private final List<String> reports = new CopyOnWriteArrayList<>();
    private final ResourceLeakDetector.Level before = ResourceLeakDetector.getLevel();
    private final Logger logger = (Logger) LoggerFactory.getLogger(ResourceLeakDetector.class);
    private final AppenderBase<ILoggingEvent> appender = new AppenderBase<>() {
        @Override
        protected void append(ILoggingEvent event) {
            reports.add(event.getFormattedMessage());
        }
    };

    /** Has Netty tell of what tests lost that ran before, some of which let the bare driver lose buffers. */
    static void letBygonesBeBygones() throws InterruptedException {
        ReferenceQueue<Object> collected = new ReferenceQueue<>();
        for (int round = 0; round < 3; round++) {
            PhantomReference<Object> canary = new PhantomReference<>(new Object(), collected);
            Reference<?> died;
            do {
                System.gc();
                died = collected.remove(1_000);
            } while (died == null);
            assertThat(died).isSameAs(canary);
            ByteBufAllocator.DEFAULT.buffer(16).release();
        }
    }

    @Override
    public void beforeEach(ExtensionContext context) {
        ResourceLeakDetector.setLevel(ResourceLeakDetector.Level.PARANOID);
        logger.setAdditive(false);
        appender.start();
        logger.addAppender(appender);
    }

    @Override
    public void afterEach(ExtensionContext context) {
        logger.detachAppender(appender);
        logger.setAdditive(true);
        ResourceLeakDetector.setLevel(before);
    }

    /** Loses a buffer on purpose, and waits until that is reported: what was lost before is reported as well then. */
    List<String> reports() {
        stage();
        long deadline = System.nanoTime() + BOUND.toNanos();
        while (reports.stream().noneMatch(leak -> leak.contains(STAGED)) && System.nanoTime() < deadline) {
            System.gc();
            ByteBufAllocator.DEFAULT.buffer(16).release();
        }
        assertThat(reports).as("the detection works").anyMatch(leak -> leak.contains(STAGED));
        System.gc();
        ByteBufAllocator.DEFAULT.buffer(16).release();
        return reports.stream().filter(leak -> !leak.contains(STAGED)).toList();
    }

    private static void stage() {
        ByteBuf lost = ByteBufAllocator.DEFAULT.buffer(64);
        lost.touch(STAGED);
    }
}
