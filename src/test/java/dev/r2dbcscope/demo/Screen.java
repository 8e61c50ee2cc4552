package dev.r2dbcscope.demo;

import java.io.Console;
import java.io.PrintStream;
import java.text.DecimalFormat;
import java.text.DecimalFormatSymbols;
import java.util.Locale;
import me.tongfei.progressbar.DelegatingProgressBarConsumer;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;

/** Lines and progress bars on one output: redrawn in place in a terminal, now and then a line in a file. */
final class Screen {

    private static final int WIDTH = 110;

    private final PrintStream out;
    private final boolean terminal;
    private String lastBar = "";

    Screen(PrintStream out) {
        this.out = out;
        this.terminal = out == System.out && isTerminal();
    }

    synchronized void line(String format, Object... values) {
        out.println((terminal ? "\r\033[K" : "") + String.format(Locale.ROOT, format, values));
    }

    /** A bar with rate and remaining time; to be closed. */
    ProgressBar progress(String task, long total) {
        return new ProgressBarBuilder()
                .setTaskName(task)
                .setInitialMax(total)
                .setStyle(ProgressBarStyle.ASCII)
                .showSpeed(new DecimalFormat("#,##0", DecimalFormatSymbols.getInstance(Locale.ROOT)))
                .setMaxRenderedLength(WIDTH)
                .setUpdateIntervalMillis(terminal ? 200 : 5_000)
                .setConsumer(new DelegatingProgressBarConsumer(this::bar, WIDTH) {
                    @Override
                    public void close() {
                        endBar();
                    }
                })
                .build();
    }

    private synchronized void bar(String rendered) {
        if (terminal) {
            out.print("\r\033[K" + rendered);
            out.flush();
        } else if (!rendered.equals(lastBar)) {
            out.println(rendered.stripTrailing());
        }
        lastBar = rendered;
    }

    private synchronized void endBar() {
        if (terminal) {
            out.println();
        }
    }

    /** From JDK 22 on there is a console without a terminal too, and it says which it is. */
    private static boolean isTerminal() {
        Console console = System.console();
        if (console == null) {
            return false;
        }
        try {
            return (Boolean) Console.class.getMethod("isTerminal").invoke(console);
        } catch (ReflectiveOperationException olderJdk) {
            return true;
        }
    }
}
