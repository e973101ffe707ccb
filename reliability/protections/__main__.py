"""See `cli`."""

import sys

from reliability.protections.cli import main

if __name__ == "__main__":
    sys.exit(main())
