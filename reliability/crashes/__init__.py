"""The crash matrix: every failpoint in every operation, on real PostgreSQL, Redis and Docker.

`python -m reliability.crashes` (`make crashes`) runs all of it, `integration/test_crashes.py` a sample. A cell is an
operation, a point and an action: the manager is killed there, and started again; or it hears of an error there, and
goes on. The rule it keeps: what came of it is read from PostgreSQL, Redis and Docker alone (`reliability.invariants`).

`platform` is what a cell runs on, `scenarios` the operations, `cells` one trial, `matrix` which trials there are.
"""
