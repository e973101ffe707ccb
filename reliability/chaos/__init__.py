"""Chaos runs in the manner of Jepsen: managers, clients and seeded faults, then a check.

`make chaos` (or `python -m reliability.chaos`) runs it. `plan` derives all faults and requests from the seed; it is a
pure function. `platform` is the environment, with durable servers. `clients` and `nemesis` act, and write each action's
begin and end to a `history`. `watcher` polls Docker all the time. `checker` applies `reliability.invariants` and
compares the history. Faults come in rounds: after each one everything is healed, must become quiet, and is checked
before the next.
"""
