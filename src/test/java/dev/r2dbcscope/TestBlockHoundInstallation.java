package dev.r2dbcscope;

import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestPlan;
import reactor.blockhound.BlockHound;

/**
 * Installs BlockHound in the JVM that runs the tests. The listener that comes with BlockHound does so as soon as it is
 * loaded, which with several forks is also in Maven's own JVM, where the tests are only listed.
 */
public final class TestBlockHoundInstallation implements TestExecutionListener {

    @Override
    public void testPlanExecutionStarted(TestPlan plan) {
        BlockHound.install();
    }
}
