"""See `cli`."""

import sys

from integration.chaos.cli import main

if __name__ == "__main__":
    sys.exit(main())
