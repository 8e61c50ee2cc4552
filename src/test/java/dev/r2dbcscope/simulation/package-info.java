@NullMarked
package dev.r2dbcscope.simulation;

import org.jspecify.annotations.NullMarked;
