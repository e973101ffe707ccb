"""Three packages suffice, and without an index their wheels: tried in a separate virtual environment."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import ClassVar

from harness.machine.requirements import listed
from harness.runs import flag

ROOT = Path(__file__).parents[2]

#: Targets that run the product: the environment contains what they need, and nothing else.
TARGETS = ("setup", "doctor", "demo", "run", "unit", "integration", "integration-harness", "integration-parallel")

#: Dependencies of the three packages, as far as this Python needs them.
ALONG = {"certifi", "charset-normalizer", "idna", "requests", "urllib3", "typing-extensions", "async-timeout"}
THREE = {"docker", "psycopg", "psycopg-binary", "psycopg-pool", "redis"}


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE", "MFLAGS"))}
    return subprocess.run(
        command, env={**environment, **variables}, cwd=ROOT, capture_output=True, text=True, check=False
    )


class DoctorTest(unittest.TestCase):
    def test_it_needs_the_standard_library_alone(self) -> None:
        """`-S`: no package of any environment can be imported."""
        done = run(sys.executable, "-S", "-m", "harness", "doctor", PYTHONPATH="")
        self.assertEqual((done.returncode, done.stderr), (1, ""))
        self.assertIn("the Python package docker is missing: pip install docker", done.stdout)
        self.assertRegex(done.stdout, "(ok|missing) +Docker daemon")

    def test_it_says_of_any_address_what_is_wrong(self) -> None:
        for address in (
            "tcp://127.0.0.1:9",
            "unix:///nowhere.sock",
            "tcp://[::1",
            "ssh://nobody@127.0.0.1",
            "nonsense",
        ):
            with self.subTest(address):
                done = run(sys.executable, "-S", "-m", "harness", "doctor", PYTHONPATH="", DOCKER_HOST=address)
                self.assertEqual((done.returncode, done.stderr), (1, ""))
                self.assertRegex(done.stdout, f"missing +Docker daemon .*{re.escape(address)}")


class WheelhouseTest(unittest.TestCase):
    """The wheels come from an index; without one this test cannot run."""

    folder: ClassVar[Path]
    offline: ClassVar[dict[str, str]]

    @classmethod
    def setUpClass(cls) -> None:
        flag.check()
        if shutil.which("make") is None:
            raise unittest.SkipTest("make is not installed")
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        wheels = cls.folder / "wheels"
        command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "-d", str(wheels), *listed()]
        fetched = subprocess.run(command, capture_output=True, text=True, check=False)
        if fetched.returncode != 0:
            raise unittest.SkipTest(f"no index gives the wheels: {fetched.stderr.strip().splitlines()[-1:]}")
        cls.offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run("make", f"VENV={self.folder}/venv", f"PYTHON={sys.executable}", *arguments, **self.offline)

    def test_an_environment_of_three_wheels_runs_the_product_and_its_tests(self) -> None:
        made = self.make("venv")
        self.assertEqual(made.returncode, 0, made.stdout + made.stderr)
        python = f"{self.folder}/venv/bin/python"
        site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
        names = {each.name.partition("-")[0].lower().replace("_", "-") for each in site.glob("*.dist-info")}
        self.assertEqual(names - ALONG - {"pip", "setuptools"}, THREE)
        planned = self.make("-n", *TARGETS)
        self.assertEqual(planned.returncode, 0, planned.stderr)
        self.assertNotIn("pip install", planned.stdout)
        for target in ("doctor", "demo"):
            with self.subTest(target):
                done = self.make(target)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        command = [
            python,
            "-m",
            "unittest",
            "integration.test_lobby.Diagnostic.test_a_lobby_that_has_no_such_game_changes_nothing",
        ]
        tested = subprocess.run(
            command,
            env={**os.environ, "RTM_INTEGRATION": "require"},
            cwd=elsewhere,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(tested.returncode, 0, tested.stderr)
        found = ["discover", "-t", str(ROOT), "-s", str(ROOT / "rtmanager" / "tests"), "-p", "test_http_openapi.py"]
        skipped = run(python, "-m", "unittest", *found)
        self.assertEqual(skipped.returncode, 0, skipped.stderr)
        self.assertIn("skipped=1", skipped.stderr)

    def test_an_interpreter_that_has_the_packages_is_used_as_it_is(self) -> None:
        planned = run("make", f"PY={sys.executable}", "VENV=/nowhere", "-n", *TARGETS)
        self.assertEqual(planned.returncode, 0, planned.stderr)
        self.assertNotIn("/nowhere", planned.stdout)
