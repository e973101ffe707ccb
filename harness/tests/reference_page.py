"""Writes `docs/generated/harness.md` from the docstrings of what `harness` exports:

python -m harness.tests.reference_page > docs/generated/harness.md
"""

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import harness
from harness.fixtures import faults, scripted_registry
from harness.fixtures.reachable import Reachable
from harness.tests.comparison import ABSENT_HERE, ROWS

_HEAD = """# Reference of the harness

This page is made from the docstrings: `python -m harness.tests.reference_page > docs/generated/harness.md`.
The [guide](../harness.md) shows how to use what is listed here.
"""
_COMPARISON = """
## Comparison with testcontainers

testcontainers-python 4.15 and testcontainers-go by their documentation; "–" marks what is missing.

| wanted | testcontainers-python | testcontainers-go | here | test |
|---|---|---|---|---|
"""

Described = ast.Module | ast.ClassDef | ast.FunctionDef

#: Classes that the exported functions return, and base classes.
_GIVEN = {
    "faults.Proxy": faults.proxy.Proxy,
    "scripted_registry.ScriptedRegistry": scripted_registry.ScriptedRegistry,
    "Reachable": Reachable,
}


def page() -> str:
    """The whole page."""
    exported = {name: getattr(harness, name) for name in harness.__all__} | _GIVEN
    return "".join([_HEAD, *(_section(name, value) for name, value in exported.items()), _comparison()])


def _section(name: str, value: Any) -> str:
    return f"\n## {name}\n\n" + "\n".join(_described(name, value)).strip() + "\n"


def _described(name: str, value: Any) -> Iterator[str]:
    if not callable(value) and not isinstance(value, ModuleType):
        yield f"A value of type `{type(value).__name__}`."
        return
    source = textwrap.dedent(inspect.getsource(value))
    tree: ast.Module | ast.stmt = ast.parse(source)
    if not isinstance(value, ModuleType):
        tree = ast.parse(source).body[0]
    assert isinstance(tree, Described)
    if isinstance(tree, ast.FunctionDef):
        yield f"`{name}({_parameters(tree)})`\n"
    yield (ast.get_docstring(tree) or "") + "\n"
    if not isinstance(tree, ast.FunctionDef):
        yield from _members(tree)
    if isinstance(tree, ast.ClassDef):
        yield from _fields(tree, source.splitlines())


def _members(of: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Public methods of a class, or functions of a module, one item each; of an overloaded one the last."""
    found = {each.name: each for each in of.body if isinstance(each, ast.FunctionDef)}
    for name, each in found.items():
        text = " ".join((ast.get_docstring(each) or "").split())
        if name == "__init__":
            yield f"- constructor: `({_parameters(each)})`"
        elif text and not name.startswith("_"):
            yield f"- `{_called(name, each)}`: {text}"


def _fields(of: ast.ClassDef, lines: list[str]) -> Iterator[str]:
    """Public fields: those with `#:` comments, then the rest in one item."""
    bare = []
    for each in of.body:
        target = each.targets[0] if isinstance(each, ast.Assign) else getattr(each, "target", None)
        if not isinstance(target, ast.Name) or target.id.startswith("_"):
            continue
        if note := _note(lines, each.lineno - 1):
            yield f"- `{target.id}`: {note}"
        else:
            bare.append(f"`{target.id}`")
    if bare:
        yield f"- {'also ' if len(of.body) > len(bare) + 1 else ''}{', '.join(bare)}"


def _note(lines: list[str], at: int) -> str:
    text: list[str] = []
    while at > 0 and lines[at - 1].strip().startswith("#: "):
        at -= 1
        text.insert(0, lines[at].strip()[3:])
    return " ".join(text)


def _called(name: str, each: ast.FunctionDef) -> str:
    is_property = any(isinstance(by, ast.Name) and "property" in by.id for by in each.decorator_list)
    return name if is_property else f"{name}({_parameters(each)})"


def _parameters(of: ast.FunctionDef) -> str:
    """Its parameters with their defaults, without `self` and without annotations."""
    arguments = of.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    for each in every:
        if each is not None:
            each.annotation = None
    text = ast.unparse(arguments)
    return text.removeprefix("self").removeprefix("cls").removeprefix(", ")


def _comparison() -> str:
    rows = [
        f"| {row.wanted} | {row.python} | {row.go} | {row.here} | {', '.join(f'`{each}`' for each in row.tests)} |\n"
        for row in ROWS
    ]
    return "".join([_COMPARISON, *rows, "\nThe other two have what the harness has not:\n\n", *_absent()])


def _absent() -> Iterator[str]:
    yield from (f"- {each}\n" for each in ABSENT_HERE)


if __name__ == "__main__":
    sys.stdout.write(page())
