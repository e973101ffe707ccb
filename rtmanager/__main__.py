"""`python -m rtmanager`; see `cli.py`."""

import sys

from rtmanager.cli import main

sys.exit(main())
