"""Failpoints: the action of an armed point, and a point at every effect of the manager."""

import ast
import subprocess
import sys
import tempfile
import threading
import unittest
from collections.abc import Iterator
from pathlib import Path

import rtmanager
from rtmanager import failpoints
from rtmanager.config.settings import Config, ConfigError
from rtmanager.domain.errors import InvalidValue, Unavailable

PACKAGE = Path(rtmanager.__file__).parent
#: Functions that take the name of an effect, with the prefix of that name.
SEAMS = {
    "transaction": "postgres.",
    "write": "postgres.",
    "read": "postgres.",
    "read_texts": "postgres.",
    "_command": "redis.",
    "call": "docker.",
    "answer": "docker.",
    "_answer": "docker.",
    "_of_container": "docker.",
    "around": "",
    "before": "",
    "after": "",
}
#: Calls with an effect outside the process, by the ends of their names. Each is in a function listed here, which
#: passes through its failpoints.
RAW = {
    "psycopg.connect": {"_connect"},
    "_pool.connection": {"_pooled"},
    "_pooled": {"transaction", "write", "_read"},
    # The second changes nothing.
    "_database.connect": {"_take", "recorded_before_migrations"},
    # Of these and `database.two`, only `migrate` changes a table.
    "database.connect": {"migrate", "ask", "_hanging", "_require_pooler_room"},
    "database.two": {"examine"},
    "EngineClient": {"_new_client"},
    "os.mkdir": {"_prepare"},
    "os.chown": {"_adjust", "_set_mode", "_discard"},
    "os.rmdir": {"_discard"},
    "os.chmod": {"_set_mode"},
    # The second sends 100 Continue; the request has had no effect yet.
    "self.socket.send": {"_send", "send_continue"},
}
#: Functions of `os` that are forbidden unless listed above.
WATCHED_OS = {"mkdir", "makedirs", "fchown", "chown", "fchmod", "chmod", "remove", "unlink", "rmdir", "rename"}


class Acting(unittest.TestCase):
    def setUp(self) -> None:
        self.addCleanup(failpoints.arm, "")

    def test_nothing_is_armed_by_itself(self) -> None:
        self.assertFalse(failpoints.arm(""))
        with failpoints.around("docker.start"):
            pass

    def test_a_raise_is_a_dependency_that_does_not_answer(self) -> None:
        failpoints.arm("redis.publish.after=raise")
        done = []
        with self.assertRaises(Unavailable) as caught, failpoints.around("redis.publish"):
            done.append("published")
        self.assertEqual((caught.exception.dependency, done), ("redis", ["published"]))

    def test_before_means_that_the_effect_does_not_take_place(self) -> None:
        failpoints.arm("directory.prepare.before=raise")
        done = []
        with self.assertRaises(OSError), failpoints.around("directory.prepare"):
            done.append("prepared")
        self.assertEqual(done, [])

    def test_a_point_acts_at_its_time_and_only_then(self) -> None:
        failpoints.arm("docker.stop.before=raise#2,docker.remove.before=raise")
        failpoints.before("docker.stop")
        with self.assertRaises(Unavailable):
            failpoints.before("docker.stop")
        failpoints.before("docker.stop")

    def test_a_delay_goes_on_and_a_hang_does_not(self) -> None:
        failpoints.arm("docker.stop.before=delay(1ms) docker.stop.after=hang")
        failpoints.before("docker.stop")
        thread = threading.Thread(target=failpoints.after, args=("docker.stop",), daemon=True)
        thread.start()
        thread.join(0.05)
        self.assertTrue(thread.is_alive())

    def test_an_exit_ends_the_process_with_a_code_of_its_own(self) -> None:
        code = "from rtmanager import failpoints as f; f.arm('docker.stop.before=exit'); f.before('docker.stop')"
        self.assertEqual(subprocess.run([sys.executable, "-c", code], check=False).returncode, failpoints.EXIT_CODE)

    def test_a_file_arms_when_it_comes_and_disarms_when_it_goes(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "points"
            failpoints.arm(f"file:{file}")
            failpoints.before("docker.stop")
            file.write_text("docker.stop.before=raise\n")
            failpoints.after("docker.stop")
            with self.assertRaises(Unavailable):
                failpoints.before("docker.stop")
            file.unlink()
            failpoints.before("docker.stop")
            reached = file.with_name("points.reached").read_text().splitlines()
            self.assertEqual(reached, ["docker.stop.after", "docker.stop.before"])


class Setting(unittest.TestCase):
    def test_what_cannot_be_armed_is_named_with_what_is_expected(self) -> None:
        for text in (
            "docker.start=exit",
            "docker.strat.after=exit",
            "docker.start.after=explode",
            "docker.start.after=delay",
            "docker.start.after=exit(5ms)",
            "docker.start.after=exit#0",
            "file:relative",
        ):
            with self.subTest(text), self.assertRaisesRegex(InvalidValue, "is no failpoint: expected a list such as"):
                failpoints.checked(text)

    def test_a_fault_is_reported_with_the_others_of_the_environment(self) -> None:
        with self.assertRaises(ConfigError) as caught:
            Config.from_environment({"RTMANAGER_FAILPOINTS": "docker.strat.after=exit"})
        self.assertIn("RTMANAGER_FAILPOINTS: 'docker.strat.after=exit' is not a list such as", str(caught.exception))


class EveryEffect(unittest.TestCase):
    def test_each_name_in_the_source_is_known_and_each_known_one_is_in_the_source(self) -> None:
        used = {name for tree in _sources().values() for name in _named(tree)}
        self.assertEqual(used, failpoints.EFFECTS)

    def test_nothing_outside_of_the_process_is_changed_but_where_its_points_are(self) -> None:
        found = {place for tree in _sources().values() for place in _raw(tree)}
        self.assertEqual(found, {(call, function) for call, functions in RAW.items() for function in functions})

    def test_a_connection_of_the_watch_over_postgresql_is_only_queried(self) -> None:
        """`two` opens connections without a failpoint: they change nothing. `connect` retries by itself."""
        tree = _sources()["adapters/postgres/database.py"]
        made = {name for name, call in _calls(tree) if _dotted(call.func).endswith("self.connect")}
        self.assertEqual(made, {"two", "connect"})

    def test_redis_is_queried_under_a_name_only(self) -> None:
        [tree] = [tree for name, tree in _sources().items() if name.endswith("redis_streams.py")]
        [streams] = [each for each in tree.body if isinstance(each, ast.ClassDef)]
        methods = {each.name: each for each in streams.body if isinstance(each, ast.FunctionDef)}
        callers = _callers(methods)
        self.assertLess({"_take", "_last_given", "_make_groups"}, callers)
        outside = [
            name
            for name, method in methods.items()
            if name not in callers | {"__init__", "close", "_command"}
            and _queries_redis(method, callers, skip_named=True)
        ]
        self.assertEqual(outside, [])


def _sources() -> dict[str, ast.Module]:
    return {
        str(path.relative_to(PACKAGE)): ast.parse(path.read_text())
        for path in PACKAGE.rglob("*.py")
        if not {"tests", "fakes"} & set(path.relative_to(PACKAGE).parts) and path.name != "failpoints.py"
    }


def _named(tree: ast.Module) -> Iterator[str]:
    """Yield the effects that are named in this module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value == _PREPARE:
            yield _PREPARE
    for _, call in _calls(tree):
        seam = _dotted(call.func).rpartition(".")[2]
        ours = seam in SEAMS
        if ours and call.args and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str):
            yield SEAMS.get(seam, "docker.") + call.args[0].value


_PREPARE = "directory.prepare"


def _raw(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for function, call in _calls(tree):
        name = _dotted(call.func)
        module, _, last = name.rpartition(".")
        known = next((raw for raw in RAW if name == raw or name.endswith(f".{raw}")), None)
        if known is not None:
            yield known, function
        elif module == "os" and last in WATCHED_OS:
            yield name, function


def _callers(methods: dict[str, ast.FunctionDef]) -> set[str]:
    """The private methods that call Redis under the name of their caller."""
    found: set[str] = set()
    while True:
        more = {
            name
            for name, method in methods.items()
            if name.startswith("_")
            and name not in ("__init__", "_command")
            and _queries_redis(method, found, skip_named=False)
        }
        if more <= found:
            return found
        found |= more


def _queries_redis(node: ast.AST, callers: set[str], *, skip_named: bool) -> bool:
    """Whether the node calls Redis; `skip_named` ignores calls within `with self._command(…)`."""
    if skip_named and isinstance(node, ast.With) and _is_named(node.items[0].context_expr):
        return False
    if isinstance(node, ast.Attribute) and _dotted(node) in {
        "self._client",
        "self._waiter",
        "self._reader",
        "self._patient_reader",
        "self._shape",
    }:
        return True
    if isinstance(node, ast.Call) and _dotted(node.func).removeprefix("self.") in callers:
        return True
    return any(_queries_redis(child, callers, skip_named=skip_named) for child in ast.iter_child_nodes(node))


def _is_named(expression: ast.expr) -> bool:
    return isinstance(expression, ast.Call) and _dotted(expression.func) == "self._command"


def _calls(tree: ast.AST, function: str = "") -> Iterator[tuple[str, ast.Call]]:
    """Yield every call with the name of the innermost function around it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call):
            yield function, node
        yield from _calls(node, node.name if isinstance(node, ast.FunctionDef) else function)


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""
