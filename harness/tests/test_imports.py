"""The import of the harness is quick, and needs neither the client libraries nor any code of a single project."""

import ast
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path

import harness
from harness.runs import identity

ROOT = Path(__file__).parents[2]

_SCRIPT = """
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
print(*sorted({{"docker", "psycopg", "psycopg_pool", "redis", "requests"}} & set(sys.modules)))
"""


class ImportTest(unittest.TestCase):
    def test_no_module_of_the_harness_imports_a_service_library(self) -> None:
        names = [
            module.name
            for module in pkgutil.walk_packages(harness.__path__, "harness.")
            if ".tests" not in module.name and not module.name.endswith("__main__")
        ]
        self.assertGreater(len(names), 15)
        command = [sys.executable, "-c", _SCRIPT.format(names=names)]
        imported = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        self.assertEqual(imported.split(), [])

    def test_a_python_that_is_too_old_gets_a_sentence(self) -> None:
        """The version check uses syntax that every Python can parse, before any newer syntax."""
        source = Path(harness.__file__).read_text(encoding="ascii")
        body = ast.parse(source, feature_version=(3, 4)).body
        self.assertEqual(ast.unparse(body[1]), "import sys")
        self.assertTrue(ast.unparse(body[2]).startswith("if sys.version_info < (3, 11):"))
        for old in sorted(Path("~/.pyenv/versions").expanduser().glob("*/bin/python")):
            command = [str(old), "-c", "import sys; print(sys.version_info < (3, 11))"]
            if subprocess.run(command, capture_output=True, text=True, check=False).stdout != "True\n":
                continue
            for module in ("harness", "harness.rtm"):
                with self.subTest(python=old, module=module):
                    command = [str(old), "-B", "-m", module, "doctor"]
                    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
                    self.assertEqual((run.returncode, run.stdout), (1, ""))
                    self.assertRegex(run.stderr, r"\A.*the harness needs Python 3\.11 or newer, and this is [\d.]+\n\Z")


#: The folder for a single project, and words that only it may use.
SPECIFIC = "rtm"
WORDS = re.compile(r"rtmanager|galaxy", re.IGNORECASE)


def imported(source: str) -> Iterator[str]:
    """The names that a module imports, anywhere in its code; for `from a import b`, `a` and `a.b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            yield from (f"{module}.{each.name}" for each in node.names)


class SeparationTest(unittest.TestCase):
    def setUp(self) -> None:
        self.root = Path(harness.__file__).parent
        below = (path for path in self.root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        self.generic = [path for path in below if path.relative_to(self.root).parts[0] != SPECIFIC]
        self.assertGreater(len(self.generic), 80)

    def test_the_generic_part_imports_nothing_of_a_project_or_its_program(self) -> None:
        foreign = re.compile(rf"\.|harness\.{SPECIFIC}\b|(rtmanager|integration|reliability|bench)\b")
        for path in self.generic:
            if path.suffix == ".py":
                found = [name for name in imported(path.read_text()) if foreign.match(name)]
                self.assertEqual(found, [], path)

    def test_nor_does_it_name_them(self) -> None:
        for path in self.generic:
            if path.relative_to(self.root).parts[0] != "tests":
                self.assertEqual(WORDS.findall(path.read_text()), [], path)

    def test_it_works_without_them(self) -> None:
        """In a copy, as in another project; imports by name would fail here."""
        copy = Path(self.enterContext(tempfile.TemporaryDirectory()))
        shutil.copytree(self.root, copy / "harness", ignore=shutil.ignore_patterns(SPECIFIC, "tests", "__pycache__"))
        modules = (path.relative_to(copy).with_suffix("") for path in (copy / "harness").rglob("*.py"))
        names = [".".join(each.parts).removesuffix(".__init__") for each in modules if each.name != "__main__"]
        self.assertGreater(len(names), 60)
        script = _SCRIPT.format(names=names) + "from harness.cli import main; main(['--help'])"
        environment = identity.child_environment(identity.python_path(copy))
        command = [sys.executable, "-c", script]
        run = subprocess.run(command, env=environment, cwd=copy, capture_output=True, text=True, check=False)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.assertIn("python -m harness", run.stdout)

    def test_an_import_is_found_in_any_form(self) -> None:
        source = "def f():\n  from harness import rtm\n  import harness.rtm.case as c\n  from . import x\n"
        self.assertEqual(set(imported(source)), {"harness", "harness.rtm", "harness.rtm.case", ".", "..x"})
