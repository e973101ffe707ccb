"""Importing the harness is quick and needs none of the libraries that talk to services."""

import pkgutil
import subprocess
import sys
import unittest

import harness

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
            if not module.name.startswith("harness.tests") and not module.name.endswith("__main__")
        ]
        self.assertGreater(len(names), 15)
        command = [sys.executable, "-c", _SCRIPT.format(names=names)]
        imported = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        self.assertEqual(imported.split(), [])
