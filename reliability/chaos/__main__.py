"""The command line of chaos runs, see `cli`."""

import sys

from reliability.chaos.cli import main

if __name__ == "__main__":
    sys.exit(main())
