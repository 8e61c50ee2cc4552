/**
 * What users need to check in their own tests that nothing leaks and nothing hangs.
 *
 * <p>{@link dev.r2dbcscope.testkit.LeakAssertions} finds what a test has not given back, and {@link
 * dev.r2dbcscope.testkit.LeakExtension} asks it after each test.
 *
 * <p>{@link dev.r2dbcscope.testkit.ProbeConnectionFactory} stands for a database and does as it is told. Nothing else in
 * the library knows this package. JUnit and Reactor Netty are needed only by the classes that say so.
 */
@NullMarked
package dev.r2dbcscope.testkit;

import org.jspecify.annotations.NullMarked;
