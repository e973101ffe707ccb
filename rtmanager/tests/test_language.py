"""Docstrings, comments and pages use the field's words: no verbs for people about programs, no private words.

So do the texts that `reliability/` prints.
"""

import ast
import io
import re
import tokenize
import unittest
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Its strings are what it reports: labels of steps, violations, descriptions of mutants.
REPORTS = ROOT / "reliability"
CODE = ("rtmanager", "harness", "integration/support", "reliability", "bench")
#: Words of docs/glossary.md are used instead.
PRIVATE = re.compile(
    r"\b(told|tells|asked|asks|hears|heard|wish|wishes|wants|wakes up|looked at|sees to|seen to"
    r"|vantage|settler|nursery)\b",
    re.IGNORECASE,
)


def prose_of(path: Path) -> Iterator[str]:
    """The lines of docstrings and comments; in `reliability/` those of all strings."""
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from (ast.get_docstring(node) or "").splitlines()
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and path.is_relative_to(REPORTS):
            yield from node.value.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def found() -> Iterator[tuple[str, str]]:
    """Lines with a private word, by file."""
    code = [path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))]
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/decisions").glob("*.md"))]
    for path in (*code, *pages):
        if path.name == "configuration.md":
            continue
        lines = prose_of(path) if path.suffix == ".py" else path.read_text().splitlines()
        for line in lines:
            if PRIVATE.search(re.sub(r"`[^`]*`", "", line)):
                yield path.relative_to(ROOT).as_posix(), line.strip()


class Language(unittest.TestCase):
    def test_no_private_word_is_left(self) -> None:
        self.assertEqual(sorted(found()), [])


if __name__ == "__main__":
    unittest.main()
