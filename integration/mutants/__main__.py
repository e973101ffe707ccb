"""`python -m integration.mutants`."""

from integration.mutants.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
