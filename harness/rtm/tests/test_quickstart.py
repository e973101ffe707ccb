"""`make run`, and the commands of README.md, docs/quickstart.md and docs/operations.md, pasted as by a reader."""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from harness.runs import flag, identity
from rtmanager.fakes.signals import as_in_a_terminal

ROOT = Path(__file__).parents[3]

#: What `make run` prints last.
LAST = "Ctrl-C stops the manager"
TIMEOUT_S = 120.0

#: What a reader sees of a game's record, in this order.
STATES = ('"status" ?: ?"running"', '"status" ?: ?"removed"')

_SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def setUpModule() -> None:
    flag.check()


def commands(page: str, begin: str, end: str) -> str:
    """The shell commands of a page between two headings, with game ids that no other run on this daemon uses."""
    text = (ROOT / page).read_text()
    found = "".join(_SHELL.findall(text[text.index(begin) : text.index(end)]))
    return re.sub(r"\b(first|second|readme)\b", rf"\1-{identity.current().run}", found)


#: Commands of docs/operations.md that are not run here, each with the reason.
ELSEWHERE = {
    "python -m rtmanager ": "integration/test_check.py, test_process.py and test_migrations.py run each of them",
    "systemctl reload docker": "it changes the daemon of the host; test_docker_outage.py has daemons of its own",
    "setpriv ": "`make integration-not-root` runs the suite like this",
    "User=": "a unit of systemd",
    '{"ok": ': "an output",
}


def runbook() -> tuple[str, list[str]]:
    """The commands of docs/operations.md in the order of the page as one script, and those that it leaves out."""
    game = f"g-4711-{identity.current().run}"
    script: list[str] = []
    left_out: list[str] = []
    for block in re.findall(r"(?:^    .*\n)+", (ROOT / "docs/operations.md").read_text(), re.MULTILINE):
        text = block.replace("    [Service]\n", "").replace("\\\n", "")
        for each in re.findall(r"^    (SELECT [^;]*;|.*)", text, re.MULTILINE):
            if any(each.startswith(known) for known in ELSEWHERE):
                left_out.append(each)
            else:
                script.append(f'sql -c "{each}"\n' if each.startswith("SELECT") else f"{each}\n")
    found = "".join(script).replace("http://127.0.0.1:8096", "${RTM%/api/*}").replace("g-4711", game)
    found = found.replace("redis-cli ", "redis_cli ").replace("psql ", "sql ")
    return found, left_out


class QuickstartTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        as_in_a_terminal(cls)
        if missing := [name for name in ("bash", "curl", "docker") if shutil.which(name) is None]:
            raise unittest.SkipTest(f"a reader needs {', '.join(missing)}")

    def setUp(self) -> None:
        self.errors = self.enterContext(tempfile.TemporaryFile("w+"))
        self.manager = subprocess.Popen(
            [sys.executable, "-m", "harness.rtm", "run"],
            cwd=ROOT,
            env=identity.child_environment({}),
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        self.addCleanup(self.manager.communicate)
        self.addCleanup(self.manager.kill)
        self.definitions = self.printed_by(self.manager)

    def tearDown(self) -> None:
        self.manager.send_signal(signal.SIGINT)
        self.assertEqual(self.manager.wait(TIMEOUT_S), 0)

    def test_every_command_of_the_quickstart_works_as_it_stands(self) -> None:
        found = commands("docs/quickstart.md", "## 2.", "## Run it on")
        self.assertIn(".venv/bin/python", found)
        printed = self.pasted(self.definitions, found.replace(".venv/bin/python", sys.executable))
        for wanted in (*STATES, "galaxy-game-first", r"second-\w+ success http://galaxy-game-second-\w+:8080"):
            self.assertRegex(printed, wanted)

    def test_the_job_of_the_readme_gets_its_result(self) -> None:
        printed = self.pasted(self.definitions, commands("README.md", "## Send a job", "## Where"))
        for wanted in (r"http://galaxy-game-readme-\w+:8080", STATES[0]):
            self.assertRegex(printed, wanted)

    def test_every_command_of_the_runbook_works(self) -> None:
        script, left_out = runbook()
        self.assertEqual([known for known in ELSEWHERE if not any(each.startswith(known) for each in left_out)], [])
        start = commands("README.md", "## Send a job", "## Where").replace("readme", "g-4711").partition("curl")[0]
        printed = self.pasted(self.definitions, start, script)
        for wanted in (
            '"status":"ready"',
            STATES[0],
            '"status":"healthy"',
            "last-delivered-id",
            "deferred_why",
            "INSERT 0 1",
        ):
            self.assertRegex(printed, wanted)

    def printed_by(self, run: "subprocess.Popen[str]") -> str:
        """The definitions that `make run` prints for another terminal, once it serves."""
        assert run.stdout is not None
        lines: list[str] = []
        while not (lines and lines[-1].startswith(LAST)):
            line = run.stdout.readline()
            if not line:
                self.errors.seek(0)
                self.fail("".join(lines) + self.errors.read())
            lines.append(line)
        return "".join(line for line in lines if re.match(r"  (export RTM=|redis_cli\(\)|sql\(\))", line))

    def pasted(self, *script: str) -> str:
        """The output of a shell that exits at the first command that fails."""
        done = subprocess.run(
            ["bash", "-e"],
            input="".join(script),
            cwd=ROOT,
            env=identity.child_environment({}),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout
