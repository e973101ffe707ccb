"""The crash matrix: every failpoint in every operation, on real PostgreSQL, Redis and Docker.

`python -m reliability.crashes` (`make crashes`) runs all of it, `integration/test_crashes.py` a sample. A cell is an
operation, a failpoint and an action: the manager is killed there and restarted, or gets an error there and continues.
Invariant: the result is read from PostgreSQL, Redis and Docker alone (`reliability.invariants`).

`platform` is the environment of a cell, `scenarios` the operations, `cells` one trial, `matrix` the list of trials.
"""
