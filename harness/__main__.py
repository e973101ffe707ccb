"""`python -m harness`."""

import signal

from harness.cli import main

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # see `harness/__init__.py`
        signal.signal(signal.SIGINT, signal.default_int_handler)
    raise SystemExit(main())
