package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;

/** What README.md prints is what runs. */
class ReadmeTest {

    private static final Pattern BLOCK = Pattern.compile("```java\\n(.*?)```", Pattern.DOTALL);
    private static final Pattern EXAMPLE = Pattern.compile("// example: [^\\n]*\\n(.*?)// end\\n", Pattern.DOTALL);

    @Test
    void everyJavaBlockIsPartOfACompiledExample() throws IOException {
        List<String> examples = matches(EXAMPLE, "src/test/java/dev/r2dbcscope/ReadmeExamplesIT.java");
        List<String> blocks = matches(BLOCK, "README.md");

        assertThat(blocks).hasSizeGreaterThan(10);
        assertThat(blocks)
                .allSatisfy(block -> assertThat(examples)
                        .anySatisfy(example -> assertThat(example).contains(block)));
    }

    @Test
    void theTestCommandIsTheOneOfTheBuild() throws IOException {
        String ci = Files.readString(Path.of(".ci/run"));
        String command =
                ci.lines().filter(line -> line.startsWith("mvn")).findFirst().orElseThrow();

        assertThat(Files.readString(Path.of("README.md")).lines()).contains(command);
    }

    /** Without white space, which the formatter decides. */
    private static List<String> matches(Pattern pattern, String file) throws IOException {
        return pattern.matcher(Files.readString(Path.of(file)))
                .results()
                .map(MatchResult::group)
                .map(text -> pattern.matcher(text).replaceFirst("$1").replaceAll("\\s", ""))
                .toList();
    }
}
