"""Benchmarks: the service and the harness against another implementation of the same work, in the same run.

    python -m bench harness --runs 20
    python -m bench watch --runs 20

The ratio is our time divided by the reference's: the median over the rounds, with the ratio of the p95 in brackets.
In each round every side runs once, in an order that rotates, so that a busy machine slows all sides down.
Milliseconds are comparable within one table only. A reference may be a floor, such as the bare Docker calls
that any implementation makes: the ratio then shows what we add to it.

The table has the interval of each ratio (`figures`). A goal is missed only when the whole interval is above it. When
the interval contains it, the goal is open. Values that are measured once are taken between two timings of fixed work
(`calibration`). `python -m bench page` writes the tables and adds the results to docs/generated/bench-history.tsv,
which keeps ten of each row (`history`).
"""
