"""`python -m rtmanager`; see `cli.py`."""

import sys

from rtmanager.cli import main
from rtmanager.standard_streams import settle_streams

try:
    code = main()
finally:
    # Also after `--help`, which leaves by SystemExit.
    settle_streams()
sys.exit(code)
