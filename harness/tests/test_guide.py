"""The examples of docs/harness.md, run as a reader runs them: in a folder of another project."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from harness.runs import flag, identity

ROOT = Path(__file__).parents[2]

#: The folders that contain tests.
TOPS = ("rtmanager", "harness", "integration", "reliability", "bench")

_EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


#: A test, or a module of tests, that a page names; an ellipsis after it replaces the rest of a file's name.
_NAMED = re.compile(r"\b(test_\w+)\b(?!…)")
_PAIR = re.compile(r"\b(test_\w+)\.(test_\w+)")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?://)([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_DEFINED = re.compile(r"^ +def (test_\w+)\(", re.MULTILINE)


class NamedTestsTest(unittest.TestCase):
    def test_every_test_that_the_documentation_names_exists(self) -> None:
        modules = [path for top in TOPS for path in (ROOT / top).rglob("*.py")]
        known = {path.stem for path in modules if path.stem.startswith("test_")}
        for path in modules:
            known |= set(_DEFINED.findall(path.read_text()))
        pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
        named = {name: page.name for page in pages for name in _NAMED.findall(_FENCED.sub("", page.read_text()))}
        self.assertEqual({name: page for name, page in named.items() if name not in known}, {})

    def test_a_test_that_is_named_with_its_module_is_in_that_module(self) -> None:
        there: set[tuple[str, str]] = set()
        for path in (path for top in TOPS for path in (ROOT / top).rglob("test_*.py")):
            there |= {(path.stem, name) for name in _DEFINED.findall(path.read_text())}
        pairs = [pair for page in (ROOT / "docs").glob("*.md") for pair in _PAIR.findall(page.read_text())]
        self.assertGreater(len(pairs), 30)
        self.assertEqual([pair for pair in pairs if pair not in there], [])


class LinksTest(unittest.TestCase):
    def test_each_link_to_a_file_or_heading_of_the_project_leads_there(self) -> None:
        pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        links = [(page, link) for page in pages for link in _LINK.findall(_FENCED.sub("", page.read_text()))]
        self.assertGreater(len(links), 100)
        self.assertEqual([(page.name, link) for page, link in links if not self.leads(page, link)], [])

    def leads(self, page: Path, link: str) -> bool:
        path, _, heading = link.partition("#")
        target = (page.parent / path) if path else page
        if not heading or not target.is_file():
            return target.exists()
        return heading in {_anchor(each) for each in _HEADING.findall(_FENCED.sub("", target.read_text()))}


def _anchor(heading: str) -> str:
    """The anchor that a forge gives to a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


class ContributingTest(unittest.TestCase):
    def test_each_path_and_each_name_of_a_constant_is_there(self) -> None:
        page = (ROOT / "CONTRIBUTING.md").read_text()
        paths = re.findall(r"`([\w./-]+(?:/|\.(?:py|md|yaml)))`", page)
        self.assertGreater(len(paths), 20)
        missing = [each for each in paths if not any((top / each).exists() for top in (ROOT, ROOT / "rtmanager"))]
        self.assertEqual(missing, [])
        source = "".join(path.read_text() for top in TOPS for path in (ROOT / top).rglob("*.py"))
        names = re.findall(r"`(_?[A-Z]+|_?[a-z]+_[a-z]+|[A-Z][a-z]+(?:[A-Z][a-z]+)*)`", page)
        self.assertGreater(len(names), 5)
        known = {path.stem for top in TOPS for path in (ROOT / top).rglob("*.py")}
        self.assertEqual([each for each in names if not re.search(rf"\b{each}\b", source) and each not in known], [])


class ReadmeTest(unittest.TestCase):
    def test_each_block_of_commands_can_be_pasted_into_a_shell(self) -> None:
        blocks = [each.strip("`\n") for each in _FENCED.findall((ROOT / "README.md").read_text())]
        commands = [each.splitlines() for each in blocks if each.startswith(("make", "python", ".venv/bin/python"))]
        self.assertGreaterEqual(len(commands), 2)
        for line in (line for block in commands for line in block):
            with self.subTest(line):
                words = shlex.split(line, comments=True)
                self.assertEqual(len(words), 2 if words[0] == "make" else 4)


class GuideTest(unittest.TestCase):
    def test_every_example_passes_as_it_stands(self) -> None:
        flag.check()
        examples = _EXAMPLE.findall((ROOT / "docs" / "harness.md").read_text())
        guide = (ROOT / "docs" / "harness.md").read_text()
        self.assertEqual(guide.count("\nclass "), sum(example.count("\nclass ") for example in examples))
        tests = sum(example.count("    def test_") for example in examples)
        project = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for number, example in enumerate(examples):
            (project / f"test_example_{number}.py").write_text(example)
        run = subprocess.run(
            [sys.executable, "-m", "unittest"],
            env={**os.environ, **identity.python_path(ROOT), "RTM_INTEGRATION": "require"},
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn(f"Ran {tests} tests", run.stderr)
        again = subprocess.run(
            [sys.executable, "-m", "unittest", "test_example_0", "test_example_0"],
            env={**os.environ, **identity.python_path(ROOT), "RTM_INTEGRATION": "require"},
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertIn("Ran 2 tests", again.stderr)

    def test_the_first_example_has_a_test_case_of_ten_lines(self) -> None:
        first = _EXAMPLE.findall((ROOT / "docs" / "harness.md").read_text())[0]
        self.assertLessEqual(sum(1 for line in first.splitlines() if line.strip()), 10)
