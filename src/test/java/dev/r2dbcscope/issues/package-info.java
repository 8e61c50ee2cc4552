/** Situations in which others had bugs, each named by its issue, and what becomes of them here. */
package dev.r2dbcscope.issues;
