"""`python -m rtmanager`; see `cli.py`."""

import gc
import os
import signal
import sys


def _end(number: int, _frame: object) -> None:
    os._exit(128 + number)


def _ignore(number: int, frame: object) -> None:
    """Ignore a signal; child processes would inherit `SIG_IGN`."""


# Set before the imports, which take longest. The kernel's default does not end the first process of a container. A
# signal that this process ignored from its start stays ignored.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)
for ending in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(ending) is signal.SIG_DFL:
        signal.signal(ending, _end)
for ignored in (signal.SIGUSR1, signal.SIGUSR2):  # see `cli.IGNORED`
    if signal.getsignal(ignored) is signal.SIG_DFL:
        signal.signal(ignored, _ignore)

# Imports leave no garbage; collections take an eighth of their time.
gc.disable()
try:
    from rtmanager.cli import main
    from rtmanager.standard_streams import settle_streams
except (MemoryError, ImportError) as error:
    # A C module without memory raises an ImportError.
    if isinstance(error, ImportError) and "failed to map segment" not in str(error):
        raise
    sys.exit("rtmanager: this process gets no more memory; remedy: raise its limit (`ulimit -v`, or the container's)")
gc.freeze()
gc.enable()

try:
    code = main()
finally:
    # Also after `--help`, which raises SystemExit.
    settle_streams()
sys.exit(code)
