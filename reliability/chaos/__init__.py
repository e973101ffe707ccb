"""A nemesis run in the manner of Jepsen: managers, clients and seeded trouble, then a judgement.

`make chaos` (or `python -m reliability.chaos`) runs it; `plan` says what is to happen, a pure function of the seed;
`platform` is the world it happens in, with servers that keep what they acknowledged; `clients` and `nemesis` act, and
write each deed with its begin and its end into a `history`; `watcher` looks at Docker all the time; `verdict` judges
with `reliability.invariants` and with what the history says. Trouble comes in rounds: after each one everything is
healed, has to become quiet, and is judged before the next.
"""
