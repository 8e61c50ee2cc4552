/**
 * Connection scopes for R2DBC: a connection that lives exactly as long as the reactive pipeline that uses it.
 *
 * <p>{@link dev.r2dbcscope.ConnectionScopes} is where to start. Everything upstream of its operators, nested
 * {@code flatMap}s included, shares one connection, which is released exactly once, in order, when the last work on it
 * is done: on complete, error or cancel.
 *
 * <p>{@link dev.r2dbcscope.ScopeOptions} and {@link dev.r2dbcscope.TransactionOptions} say how scopes behave, {@link
 * dev.r2dbcscope.CurrentScope} is the scope for code inside it, {@link dev.r2dbcscope.ScopeBridge} leads to futures and
 * callbacks, and every error of a scope is a {@link dev.r2dbcscope.ScopeException}.
 */
@NullMarked
package dev.r2dbcscope;

import org.jspecify.annotations.NullMarked;
