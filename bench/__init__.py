"""Benchmarks: how quick something of ours is, compared with another way of doing the same, in the same run.

    python -m bench harness --runs 20
    python -m bench watch --runs 20

Read the last column first: how many times as quick ours is, as the median over the rounds, with the slowest
round for us in brackets. In each round every side runs once, one right after the other and each time in another
order, so that a busy machine slows all of them down; the milliseconds are those of this machine at that time and
are comparable within one table only. A reference may be a floor, such as the bare calls of Docker that any
implementation has to make: then the figure is below one, and says which share of our time those calls are.

Before and after each contest fixed pieces of work are timed (`calibration`). When the two differ by more than a fifth,
the machine was not the same, and its rows are "not measured". `python -m bench page` adds the results to
docs/generated/bench-history.tsv, of which each row keeps ten (`history`).
"""
