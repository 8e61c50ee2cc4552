package dev.r2dbcscope.testkit;

import io.netty.buffer.ByteBuf;

/** How far what one side of one connection sends is from a trigger's moment. Used on the proxy's thread only. */
interface NetworkWatch {

    /** How many of the next bytes pass before the moment comes, or -1 if it does not come within them. */
    int find(ByteBuf bytes, int length);

    /** So many of the next bytes pass. */
    void passed(ByteBuf bytes, int length);

    /** Counts bytes. */
    final class ForByte implements NetworkWatch {

        private long left;

        ForByte(long bytes) {
            left = bytes;
        }

        @Override
        public int find(ByteBuf bytes, int length) {
            return left < length ? (int) left : -1;
        }

        @Override
        public void passed(ByteBuf bytes, int length) {
            left -= length;
        }
    }

    /** Looks for a word by the algorithm of Knuth, Morris and Pratt, which never looks at a byte twice. */
    final class ForWord implements NetworkWatch {

        private final byte[] word;
        private final int[] borders;
        private int matched;

        ForWord(byte[] word) {
            this.word = word;
            this.borders = borders(word);
        }

        /** For each beginning of the word: how much of its beginning it ends with. */
        private static int[] borders(byte[] word) {
            int[] borders = new int[word.length];
            int border = 0;
            for (int i = 1; i < word.length; i++) {
                while (border > 0 && word[i] != word[border]) {
                    border = borders[border - 1];
                }
                if (word[i] == word[border]) {
                    border++;
                }
                borders[i] = border;
            }
            return borders;
        }

        @Override
        public int find(ByteBuf bytes, int length) {
            int state = matched;
            for (int i = 0; i < length; i++) {
                state = next(state, bytes.getByte(bytes.readerIndex() + i));
                if (state == word.length) {
                    return Math.max(0, i + 1 - word.length);
                }
            }
            return -1;
        }

        @Override
        public void passed(ByteBuf bytes, int length) {
            for (int i = 0; i < length; i++) {
                matched = next(matched, bytes.getByte(bytes.readerIndex() + i)) % word.length;
            }
        }

        private int next(int state, byte sent) {
            int next = state;
            while (next > 0 && sent != word[next]) {
                next = borders[next - 1];
            }
            return sent == word[next] ? next + 1 : next;
        }
    }
}
