package dev.r2dbcscope.demo;

import java.util.ArrayList;
import java.util.List;

/** Rows of text in columns as wide as they need to be. */
final class TextTable {

    private static final int WIDEST = 44;

    private final List<List<String>> rows = new ArrayList<>();

    TextTable(String... titles) {
        rows.add(List.of(titles));
    }

    void row(String... cells) {
        List<String> row = new ArrayList<>();
        for (String cell : cells) {
            String flat = cell.replaceAll("\\s+", " ");
            row.add(flat.length() <= WIDEST ? flat : flat.substring(0, WIDEST - 3) + "...");
        }
        rows.add(row);
    }

    void print(Screen screen, String indent) {
        int[] widths = new int[rows.get(0).size()];
        for (List<String> row : rows) {
            for (int i = 0; i < widths.length; i++) {
                widths[i] = Math.max(widths[i], row.get(i).length());
            }
        }
        for (List<String> row : rows) {
            StringBuilder line = new StringBuilder(indent);
            for (int i = 0; i < widths.length; i++) {
                line.append(row.get(i)).append(" ".repeat(widths[i] - row.get(i).length() + 2));
            }
            screen.line("%s", line.toString().stripTrailing());
        }
    }
}
