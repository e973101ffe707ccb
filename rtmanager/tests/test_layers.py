"""Imports between the layers of the product: those of the table, and no other."""

import ast
import re
import unittest
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1]

#: The packages and top-level modules of each layer. The longest matching name counts.
MEMBERS = {
    "domain": ("domain",),
    "foundations": (
        "failpoints",
        "log_values",
        "log_writer",
        "logs",
        "metrics",
        "resources",
        "standard_streams",
        "threads",
    ),
    "ports": ("ports",),
    "config": ("config",),
    "operations": ("operations",),
    "workers": ("workers",),
    "http": ("http",),
    "adapters": ("adapters",),
    "bootstrap": ("bootstrap",),
    "commands": ("__main__", "checking", "cli", "trials"),
    "fakes": ("fakes",),
}

#: What each layer may import besides itself.
ALLOWED = {
    "domain": (),
    "foundations": ("domain",),
    "ports": ("domain",),
    "config": ("domain", "foundations", "ports"),
    "operations": ("domain", "foundations", "ports"),
    "workers": ("domain", "foundations", "ports", "operations"),
    "http": ("domain", "foundations", "ports", "config"),
    "adapters": ("domain", "foundations", "ports", "config"),
    "bootstrap": ("domain", "foundations", "ports", "config", "operations", "workers", "http", "adapters"),
    "commands": ("domain", "foundations", "ports", "config", "adapters", "bootstrap"),
    "fakes": ("domain", "ports"),
}


def layer_of(module: str) -> str | None:
    """The layer of `rtmanager.<module>`; None for the package itself."""
    names = {member: layer for layer, members in MEMBERS.items() for member in members}
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if found := names.get(".".join(parts[:length])):
            return found
    return None


def modules() -> Iterator[tuple[str, Path]]:
    """Each module of the product without its tests: its name below `rtmanager`, and its file."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "tests" and parts != ("__init__",):
            yield ".".join(parts).removesuffix(".__init__"), path


def imported(path: Path) -> Iterator[str]:
    """The modules of `rtmanager` that a file imports, anywhere in it, by their names below `rtmanager`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[2] for name in node.names if name.name.startswith("rtmanager."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "rtmanager":
            base = (node.module or "").partition(".")[2]
            yield from (f"{base}.{name.name}".lstrip(".") for name in node.names)


def forbidden() -> set[tuple[str, str]]:
    """Imports (module, what it imports) that `ALLOWED` does not have."""
    found = set()
    for module, path in modules():
        here = layer_of(module)
        for target in imported(path):
            there = layer_of(target)
            if here and there and here != there and there not in ALLOWED[here]:
                found.add((module, target))
    return found


class Layers(unittest.TestCase):
    def test_each_module_belongs_to_a_layer(self) -> None:
        self.assertEqual([name for name, _ in modules() if layer_of(name) is None], [])

    def test_each_member_of_a_layer_is_there(self) -> None:
        known = {name for name, _ in modules()}
        self.assertEqual([m for members in MEMBERS.values() for m in members if m not in known], [])

    def test_no_import_but_those_of_the_table(self) -> None:
        self.assertEqual(sorted(forbidden()), [])

    def test_allowed_imports_have_no_cycle(self) -> None:
        done: set[str] = set()
        while ready := {layer for layer, below in ALLOWED.items() if layer not in done and done.issuperset(below)}:
            done |= ready
        self.assertEqual(done, set(ALLOWED))

    def test_the_guide_has_the_same_table(self) -> None:
        page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
        rows = re.findall(r"^\| (\w+) \| `.*\| ([\w, ]+) \|$", page, re.M)
        self.assertEqual(dict(rows), {layer: ", ".join(below) or "nothing" for layer, below in ALLOWED.items()})

    def test_the_product_imports_neither_harness_nor_tests(self) -> None:
        foreign = re.compile(r"\s*(from|import) (harness|integration|reliability|bench|rtmanager\.tests)\b")
        found = [module for module, path in modules() if any(map(foreign.match, path.read_text().splitlines()))]
        self.assertEqual(found, [])


if __name__ == "__main__":
    unittest.main()
