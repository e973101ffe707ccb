"""`python -m rtmanager`; see `cli.py`."""

import os
import signal
import sys


def _end(number: int, _frame: object) -> None:
    os._exit(128 + number)


# Before the imports, which take longest, and not left to the system: it keeps both from the first process of a
# container. A process that was started with one of them ignored keeps it so.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)
if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
    signal.signal(signal.SIGTERM, _end)

try:
    from rtmanager.cli import main
    from rtmanager.standard_streams import settle_streams
except (MemoryError, ImportError) as error:
    # A module in C that finds no room is an ImportError.
    if isinstance(error, ImportError) and "failed to map segment" not in str(error):
        raise
    sys.exit("rtmanager: this process gets no more memory; remedy: raise its limit (`ulimit -v`, or the container's)")

try:
    code = main()
finally:
    # Also after `--help`, which leaves by SystemExit.
    settle_streams()
sys.exit(code)
