"""See `cli`."""

import sys

from integration.protections.cli import main

if __name__ == "__main__":
    sys.exit(main())
