"""RTM_INTEGRATION: whether tests that need real services run.

| value | no Docker daemon answers | one answers |
|---|---|---|
| unset, 0 | skipped, and Docker is not asked | skipped, and Docker is not asked |
| 1 | skipped with the cause | run |
| require | fail with the cause: for CI, where a skip would hide a broken machine | run |
"""

import os
import unittest

from harness import daemon
from harness.errors import DaemonUnavailable, HarnessError

VARIABLE = "RTM_INTEGRATION"


def check() -> None:
    """Call first in `setUpModule`: raises unittest.SkipTest, or under `require` DaemonUnavailable."""
    value = os.environ.get(VARIABLE) or "0"
    if value not in ("0", "1", "require"):
        raise HarnessError(f"{VARIABLE} is {value!r}, but must be 0, 1 or require")
    if value == "0":
        raise unittest.SkipTest(f"needs real services: set {VARIABLE}=1")
    reason = daemon.why_unavailable()
    if reason is None:
        return
    if value == "require":
        raise DaemonUnavailable(f"{reason} ({VARIABLE}=require)")
    raise unittest.SkipTest(reason)
