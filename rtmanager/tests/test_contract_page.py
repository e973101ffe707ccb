"""The contract's tables say what the code says."""

import ast
import re
import unittest
from pathlib import Path

from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.health import EventType
from rtmanager.http.messages import STATUS_OF

try:
    from rtmanager.tests.contract_page import page
except ImportError as missing:
    raise unittest.SkipTest(f"{missing}: it comes with the extra dev: make tools") from missing

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "docs" / "generated" / "contract.md"
CONTRACT = ROOT / "docs" / "contract.md"

_FIRST_CELL = re.compile(r"^\| (.+?) \|", re.MULTILINE)
_METRIC = re.compile(r"`(rtmanager_\w+)(?:\{([\w,]+)\})?`")


def _section(heading: str) -> str:
    """The text below a heading of the contract, up to the next heading of any level."""
    _, found, rest = CONTRACT.read_text(encoding="utf-8").partition(f"\n{heading}\n")
    assert found, f"docs/contract.md has no heading {heading!r}"
    return re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]


class ContractPage(unittest.TestCase):
    def test_the_page_in_docs_is_the_one_that_the_tables_make(self) -> None:
        remedy = "run python -m rtmanager.tests.contract_page > docs/generated/contract.md"
        self.assertEqual(GENERATED.read_text(encoding="utf-8"), page(), remedy)

    def test_the_contract_lists_every_error_code_with_its_status(self) -> None:
        rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", _section("### Error codes"), re.MULTILINE)
        reserved = {ErrorCode.DOCKER_UNAVAILABLE}
        expected = {code.value: STATUS_OF.get(code, 200) for code in ErrorCode if code not in reserved}
        self.assertEqual({code: int(status) for code, status in rows}, expected)

    def test_the_contract_lists_every_health_event(self) -> None:
        cells = _FIRST_CELL.findall(_section("## Health events"))
        self.assertEqual([cell.strip("`") for cell in cells[1:] if "-" not in cell], [event.value for event in EventType])

    def test_the_contract_lists_every_metric_with_its_labels(self) -> None:
        listed = {name: labels for name, labels in _METRIC.findall(_section("### Metrics"))}
        self.assertEqual(listed, _metrics_of_the_code())


def _metrics_of_the_code() -> dict[str, str]:
    """The names of all metrics that the package makes, with their labels."""
    found = {}
    for path in (ROOT / "rtmanager").rglob("*.py"):
        if "tests" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr not in ("counter", "read_counter", "gauge"):
                continue
            texts = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            name, _, *labels = texts
            found[name] = ",".join(labels)
    return found
