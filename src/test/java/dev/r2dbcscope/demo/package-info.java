/**
 * The demo: what scopes are for, shown on a real PostgreSQL with a shop of 200,000 orders. {@code mvn -q -Pdemo} runs it.
 */
package dev.r2dbcscope.demo;
