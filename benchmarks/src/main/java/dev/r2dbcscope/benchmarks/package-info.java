/** JMH benchmarks of the scopes. */
package dev.r2dbcscope.benchmarks;
