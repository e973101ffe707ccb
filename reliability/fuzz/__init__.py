"""Seeded fuzz runs against real services: `python -m reliability.fuzz NAME`.

Each module here is one run. It has `DEFAULT_COUNT`, the inputs of a full run, and
`run(seed, count, report) -> list[str]`, which returns the violations: none is a pass. One seed always gives the same
inputs. `make test` runs a short form of each through `integration/test_fuzz.py`.
"""
