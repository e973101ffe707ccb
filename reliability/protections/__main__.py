"""The command line of the protections, see `cli`."""

import sys

from reliability.protections.cli import main

if __name__ == "__main__":
    sys.exit(main())
