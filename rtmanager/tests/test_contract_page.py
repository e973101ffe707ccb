"""The contract's tables agree with the code."""

import re
import unittest
from pathlib import Path

from rtmanager.config.variables import STREAMS
from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.health import EventType
from rtmanager.domain.jobs import INPUT_STREAMS
from rtmanager.domain.messages import Stream
from rtmanager.domain.operation import OpKind
from rtmanager.http.messages import STATUS_OF

try:
    import yaml

    from rtmanager.tests.contract_page import metrics, page
except ImportError as missing:
    raise unittest.SkipTest(f"{missing}: it comes with the extra dev: make tools") from missing

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "docs" / "generated" / "contract.md"
CONTRACT = ROOT / "docs" / "contract.md"

#: A reference of a docstring or a comment to a section, which may be broken over two lines.
_REFERENCE = re.compile(r'contract,\s+(?:#[:]?\s+|--\s+)?"([^"]+)"')

_FIRST_CELL = re.compile(r"^\| (.+?) \|", re.MULTILINE)


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
        rows = re.findall(r"^\| (\d+) \| (.+) \|$", _section("### Error codes"), re.MULTILINE)
        listed = {code: int(status) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)}
        self.assertEqual(listed, {code.value: STATUS_OF.get(code, 200) for code in ErrorCode})

    def test_every_name_of_a_metric_in_the_code_is_in_the_table(self) -> None:
        files = [path for path in (ROOT / "rtmanager").rglob("*.py") if not {"tests", "testing"} & set(path.parts)]
        named = {name for path in files for name in re.findall(r'"(rtmanager_[a-z_]+)"', path.read_text("utf-8"))}
        self.assertGreater(len(named), 10)
        self.assertEqual(named, set(metrics()))

    def test_the_contract_lists_every_health_event(self) -> None:
        cells = _FIRST_CELL.findall(_section("## Health events"))
        self.assertEqual(
            [cell.strip("`") for cell in cells[1:] if "-" not in cell], [event.value for event in EventType]
        )

    def test_every_reference_to_a_section_names_one_that_the_contract_has(self) -> None:
        headings = set(re.findall(r"^#+ (.+)$", CONTRACT.read_text(encoding="utf-8"), re.MULTILINE))
        sources = [each for suffix in ("py", "sql") for each in (ROOT / "rtmanager").rglob(f"*.{suffix}")]
        found = {
            " ".join(name.split()) for each in sources for name in _REFERENCE.findall(each.read_text(encoding="utf-8"))
        }
        self.assertGreater(len(found), 3)
        self.assertLessEqual(found, headings)

    def test_the_contract_lists_every_endpoint_and_every_kind_of_job(self) -> None:
        document = yaml.safe_load((ROOT / "rtmanager/http/openapi.yaml").read_text(encoding="utf-8"))
        paths = {
            (method.upper(), path.replace("/api/v1/internal/runtimes", "…"))
            for path, methods in document["paths"].items()
            for method in methods
            if method in ("get", "post", "delete", "put", "patch")
        }
        listed = re.findall(r"^    ([A-Z]+) +(\S+)", _section("## REST"), re.MULTILINE)
        self.assertEqual(set(listed), paths)
        kinds = document["components"]["schemas"]["LoggedOperation"]["properties"]["op_kind"]["enum"]
        self.assertEqual(set(kinds), {str(kind) for kind in OpKind})
        streams = _section("## Streams in")
        for stream in INPUT_STREAMS:
            self.assertIn(f"XADD {STREAMS[stream][0]} ", streams)
        self.assertEqual(set(STREAMS), set(Stream))
