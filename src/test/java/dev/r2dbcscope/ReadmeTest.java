package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/** What README.md prints is what runs. */
class ReadmeTest {

    private static final Pattern BLOCK = Pattern.compile("```java\\n(.*?)```", Pattern.DOTALL);
    private static final Pattern EXAMPLE = Pattern.compile("// example: [^\\n]*\\n(.*?)// end\\n", Pattern.DOTALL);

    @Test
    void everyJavaBlockIsPartOfACompiledExample() throws IOException {
        List<String> examples = examples();
        List<String> blocks = matches(BLOCK, "README.md");

        assertThat(blocks).hasSizeGreaterThan(10);
        assertThat(blocks)
                .allSatisfy(block -> assertThat(examples)
                        .anySatisfy(example -> assertThat(example).contains(block)));
    }

    private static List<String> examples() throws IOException {
        try (Stream<Path> tests = Files.list(Path.of("src/test/java/dev/r2dbcscope"))) {
            return tests.map(Path::toString)
                    .filter(file -> file.contains("Readme") && !file.endsWith("ReadmeTest.java"))
                    .flatMap(file -> matches(EXAMPLE, file).stream())
                    .toList();
        }
    }

    /** Mode by mode, in the same words. */
    @Test
    void theTableOfPropagationIsThatOfItsJavadoc() {
        List<List<String>> readme = rows("(?m)^\\| `([A-Z_]+)`[^|]*\\| (.*?) \\| (.*?) \\| (.*?) \\|$", "README.md");
        List<List<String>> javadoc = rows(
                "<tr><td>([A-Z_]+)</td><td>(.*?)</td><td>(.*?)</td>[\\s*]*<td>(.*?)</td></tr>",
                "src/main/java/dev/r2dbcscope/Propagation.java");

        assertThat(readme).isEqualTo(javadoc);
        assertThat(readme)
                .extracting(row -> row.get(0))
                .containsExactly(
                        Stream.of(Propagation.values()).map(Propagation::name).toArray(String[]::new));
    }

    private static List<List<String>> rows(String pattern, String file) {
        return Pattern.compile(pattern)
                .matcher(read(file))
                .results()
                .map(row -> IntStream.rangeClosed(1, row.groupCount())
                        .mapToObj(i -> row.group(i).replace("`", ""))
                        .toList())
                .toList();
    }

    @Test
    void theTestCommandIsTheOneOfTheBuild() throws IOException {
        String ci = Files.readString(Path.of(".ci/run"));
        String command =
                ci.lines().filter(line -> line.startsWith("mvn")).findFirst().orElseThrow();

        assertThat(Files.readString(Path.of("README.md")).lines()).contains(command);
    }

    @Test
    void everyLinkToAFileLeadsToOne() {
        List<String> links = Stream.of("README.md", "SECURITY.md", "CONTRIBUTING.md")
                .flatMap(file -> Pattern.compile("\\]\\((?!http|#)([^)#]+)")
                        .matcher(read(file))
                        .results())
                .map(link -> link.group(1))
                .toList();

        assertThat(links).hasSizeGreaterThan(20);
        assertThat(links).allSatisfy(link -> assertThat(Path.of(link)).exists());
    }

    /** What holds a guarantee is named in its table. */
    @Test
    void everyTestThatIsNamedExists() throws IOException {
        List<String> tests;
        try (Stream<Path> files = Files.walk(Path.of("src/test/java"))) {
            tests = files.map(file -> file.getFileName().toString()).toList();
        }
        List<String> named = Stream.of("README.md", "SECURITY.md")
                .flatMap(file -> Pattern.compile("`(?:\\w+/)*(\\w*[a-z](?:Test|IT|Stress))`")
                        .matcher(read(file))
                        .results())
                .map(name -> name.group(1) + ".java")
                .toList();

        assertThat(named).hasSizeGreaterThan(30);
        assertThat(tests).containsAll(named);
    }

    /** Without white space, which the formatter decides. */
    private static List<String> matches(Pattern pattern, String file) {
        return pattern.matcher(read(file))
                .results()
                .map(MatchResult::group)
                .map(text -> pattern.matcher(text).replaceFirst("$1").replaceAll("\\s", ""))
                .toList();
    }

    private static String read(String file) {
        try {
            return Files.readString(Path.of(file));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
