#!/usr/bin/env python3
"""What the documents repeat from the code is what the code says."""

import glob
import os
import re
import subprocess
import textwrap
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def pages():
    return ["README.md"] + sorted(os.path.relpath(page, ROOT) for page in glob.glob(os.path.join(ROOT, "docs/*.md")))


def sources(*patterns):
    """The text of all files that match, one after the other."""
    found = sorted(path for pattern in patterns for path in glob.glob(os.path.join(ROOT, pattern), recursive=True))
    return "\n".join(read(os.path.relpath(path, ROOT)) for path in found)


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", read(page), re.MULTILINE | re.DOTALL)


def rows(page, heading=None):
    """The cells of a page's tables, or of those below one heading, without the rows that head them."""
    text = read(page)
    if heading:
        text = re.split(r"^#+ ", text.split(heading + "\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = {i for i, line in enumerate(lines[1:]) if re.fullmatch(r"[| -]+", line)}
    return [[cell.strip() for cell in line.strip("|").split("|")] for i, line in enumerate(lines)
            if i not in heads and not re.fullmatch(r"[| -]+", line)]


def code(cell):
    return re.findall(r"`([^`]+)`", cell)


def fields(struct):
    """The members of a struct in the public headers."""
    headers = sources("sdk/include/waymark/*.h", "runner/include/waymark/*.h")
    body = re.search(rf"^struct {struct} {{\n(.*?)^}};", headers, re.MULTILINE | re.DOTALL).group(1)
    return re.findall(r"^  (?!using|friend|enum)\w[^;={]*?(\w+)(?: = [^;]*|{[^;]*})?;", body, re.MULTILINE)


class DocumentsTest(unittest.TestCase):
    maxDiff = None

    def test_every_page_is_in_the_index(self):
        index = read("docs/README.md")
        for page in pages()[1:]:
            self.assertTrue(page.endswith("docs/README.md") or f"]({os.path.basename(page)})" in index, page)

    def test_the_readmes_program_is_the_example(self):
        example = read("examples/quickstart/main.cpp")
        program = [block for block in blocks("README.md", "cpp") if "int main()" in block]
        self.assertEqual(program, [example[example.index("#include"):]])

    def test_examples_are_lines_of_a_program_that_is_compiled(self):
        programs = [read(os.path.relpath(path, ROOT)).splitlines()
                    for path in glob.glob(os.path.join(ROOT, "tests/docs/*.cpp")) +
                    glob.glob(os.path.join(ROOT, "examples/*/*.cpp"))]

        def shown(block, program):
            return any(textwrap.dedent("\n".join(program[i:i + len(block)])).splitlines() == block
                       for i in range(len(program) - len(block) + 1))

        for page in pages():
            self.assertEqual(re.findall(r"^```c\+\+", read(page), re.MULTILINE), [], page)
            for block in blocks(page, "cpp") + blocks(page, "text checked"):
                self.assertTrue(any(shown(block.splitlines(), program) for program in programs),
                                f"{page}: not in tests/docs:\n{block}")

    def test_commands_exist(self):
        targets = re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE)
        command_line = sources("runner/src/cli/*.cpp")
        for page in pages():
            for line in "".join(blocks(page, "sh")).splitlines():
                words = [word for word in line.split("#")[0].split() if not re.match(r"[A-Z_]+=", word)]
                if not words:
                    continue
                program, arguments = words[0], words[1:]
                if program == "make":
                    self.assertIn(arguments[0], targets, f"{page}: {line}")
                elif os.path.basename(program) == "waymark":
                    self.assertRegex(command_line, rf'(add_subcommand|add_command|add_group|plain)\((\w+, )?"{arguments[0]}"',
                                     f"{page}: {line}")
                    for option in arguments[1:]:
                        if option.startswith("-"):
                            self.assertRegex(command_line, rf'"{option}(,-\w)?"', f"{page}: {line}")
                elif program.startswith("scripts/"):
                    self.assertTrue(os.access(os.path.join(ROOT, program), os.X_OK), f"{page}: {line}")
                else:
                    self.assertEqual(program, "docker", f"{page}: {line}")

    def test_every_environment_variable_is_documented(self):
        code_text = sources("sdk/src/**/*.cpp", "sdk/src/**/*.h", "runner/src/**/*.cpp")
        known = set(re.findall(r'"((?:OTEL|WAYMARK|XDG)_[A-Z_]+)"', code_text))
        known.update(re.findall(r'(?:getenv|\btext)\("([A-Z_]+)"\)', code_text))
        known = {name for name in known if not name.startswith("WAYMARK_PLANTED")}
        documented = [code(row[0])[0] for row in rows("docs/configuration.md") if re.fullmatch(r"`[A-Z_]+`", row[0])]
        self.assertEqual(sorted(documented), sorted(known))

    def test_every_option_is_documented(self):
        for page in pages():
            for struct in re.findall(r"^### `(\w+)`$", read(page), re.MULTILINE):
                documented = [code(row[0])[0] for row in rows(page, f"### `{struct}`")]
                self.assertEqual(documented, fields(struct), f"{page}: {struct}")
        documented = "".join(read(page) for page in pages())
        headers = sources("*/include/waymark/*.h")
        for struct in re.findall(r"^struct (\w*(?:Options|Config)|Limits) {", headers, re.MULTILINE):
            self.assertTrue(struct in documented, f"{struct} stands in no page")

    def test_endpoints_lead_where_the_table_says(self):
        measured = {}
        for line in read("tests/config/cases/endpoints.tsv").splitlines():
            cells = line.split("\t")
            if len(cells) > 2:
                measured[cells[0].strip('"')] = cells[1:3]
        for row in rows("docs/configuration.md", "## Endpoints"):
            endpoint = code(row[0])[0]
            if endpoint in measured:
                self.assertEqual([(code(cell) or [cell])[0] for cell in row[1:]], measured[endpoint], endpoint)
        self.assertGreater(sum(code(row[0])[0] in measured for row in rows("docs/configuration.md", "## Endpoints")), 8)

    def test_the_runners_names_are_the_tables(self):
        table = re.search(r"namespace names {(.*?)}  // namespace names", read("runner/src/instrumentation.h"),
                          re.DOTALL).group(1)
        known = re.findall(r'std::string_view \w+ = "([^"]+)"', table)
        documented = [re.sub("<.*>", "", code(row[0])[0]) for row in rows("docs/runner.md", "## Names")]
        self.assertEqual(sorted(documented), sorted(known))

    def test_the_runners_states_and_tables_are_the_codes(self):
        enum = re.search(r"enum class TaskState .*?{(.*?)};", read("runner/include/waymark/job.h"), re.DOTALL).group(1)
        states = re.findall(r"^  (\w+),", enum, re.MULTILINE)
        self.assertEqual(sorted(code(row[0])[0] for row in rows("docs/runner.md", "## States")), sorted(states))
        tables = re.findall(r"CREATE TABLE (\w+)\(", read("runner/src/store/schema.h"))
        self.assertEqual(sorted(code(row[0])[0] for row in rows("docs/runner.md", "## The store")), sorted(tables))

    def assert_shown(self, promises):
        """Each promise's last cell names tests that there are: of GoogleTest, or of CTest."""
        tests = sources("tests/**/*.cpp", "tests/**/CMakeLists.txt")
        self.assertGreater(len(promises), 10)
        for promise, _, shown_by in promises:
            self.assertTrue(code(shown_by), promise)
            for test in code(shown_by):
                if "." in test:
                    self.assertRegex(tests, r"TEST(_[FP])?\(" + test.replace(".", ", ") + r"\)", promise)
                else:
                    self.assertIn(f"add_test(NAME {test} ", tests, promise)

    def test_what_the_runner_guarantees_is_tested(self):
        self.assert_shown(rows("docs/runner.md", "## What holds, and by what"))

    def test_the_runners_metrics_are_the_tables(self):
        table = re.findall(r'inline constexpr Metric \w+\{"([^"]+)", "([^"]+)", "([^"]+)"', read("runner/src/instrumentation.h"))
        self.assertGreater(len(table), 10)
        known = [(name, unit, sorted(keys.split())) for name, unit, keys in table]
        documented = []
        for row in rows("docs/metrics.md", "## The runner's"):
            of_type = ["task_identifier", "task_version"] if "type of task" in row[2] else []
            # Behind a colon stand the values of the key before it.
            keys = [key for key in re.findall(r"`([^`]+)`", re.sub(r"(`[^`]+`): .*", r"\1", row[2]))]
            documented.append((code(row[0])[0], code(row[1])[0], sorted(of_type + keys)))
        self.assertEqual(sorted(documented), sorted(known))

    def test_every_thread_is_documented(self):
        known = set(re.findall(r'"(wm-[a-z-]*)"', sources("sdk/src/**/*.cpp", "runner/src/**/*.cpp")))
        # A destination's thread has its signal's name.
        known = (known - {"wm-"}) | ({"wm-traces", "wm-logs", "wm-metrics"} if "wm-" in known else set())
        names = [name for row in rows("docs/threads.md") for name in code(row[0])]
        documented = [name.replace("<n>", "") for name in names if name.startswith("wm-")]
        self.assertEqual(sorted(documented), sorted(known))

    def test_what_delivery_promises_is_tested(self):
        self.assert_shown(rows("docs/delivery.md", "## Faults against outcomes"))

    def test_every_package_that_is_installed_is_explained(self):
        script = read("scripts/install-deps")
        installed = set()
        for group in re.findall(r'^\w+_packages="\n(.*?)^"', script, re.MULTILINE | re.DOTALL):
            installed.update(line.split()[0] for line in group.splitlines())
        explained = set()
        for line in read("docs/dependencies.md").splitlines():
            cells = line.split("|")
            if len(cells) > 3:
                explained.update(re.findall(r"`([^`]+)`", cells[2]))
        self.assertEqual(installed, explained)

    def test_links_between_documents_lead_somewhere(self):
        listed = subprocess.run(["git", "-C", ROOT, "ls-files", "*.md"], stdout=subprocess.PIPE, check=False, text=True)
        prose = {page: re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)
                 for page in listed.stdout.split()}

        def anchors(page):
            return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
                    for heading in re.findall(r"^#+ (.*)$", prose[page], re.MULTILINE)}

        for page, text in prose.items():
            for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text):
                if "://" not in target:
                    path = os.path.normpath(os.path.join(os.path.dirname(page), target)) if target else page
                    there = os.path.exists(os.path.join(ROOT, path))
                    self.assertTrue(there, f"{page} links to {target}, which is not there")
                    if anchor:
                        self.assertIn(anchor, anchors(path), f"{page} links to {target}#{anchor}")

    def test_the_version_is_the_same_everywhere(self):
        version = re.search(r"project\(Waymark VERSION (\S+)", read("CMakeLists.txt")).group(1)
        self.assertIn(f"## {version}", read("CHANGELOG.md"))


if __name__ == "__main__":
    unittest.main()
