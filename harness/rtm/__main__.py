"""`python -m harness.rtm`: the commands of the harness, with the engine's image, and `demo` and `run`."""

import argparse
import signal
import sys

from harness import cli
from harness.rtm.images import NEEDED


def demo(_arguments: argparse.Namespace) -> int:
    """play one game through its whole life, on real services, and remove everything"""
    from harness.rtm.demo import demo as play

    _end_in_order()
    play()
    return 0


def run(_arguments: argparse.Namespace) -> int:
    """serve a Runtime Manager with everything it needs, until Ctrl-C"""
    from harness.rtm.run import run as serve

    _end_in_order()
    serve()
    return 0


def _end_in_order() -> None:
    """Make SIGTERM and SIGHUP unwind like Ctrl-C, so that everything is removed."""
    from harness.runs.cleanup import unwind_on_sigterm

    unwind_on_sigterm()


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # see `harness/__init__.py`
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(cli.main(prog="python -m harness.rtm", images=NEEDED, more={"demo": demo, "run": run}))
