"""Removes protections against loss one at a time: the crash matrix, chaos or a test must detect it.

`python -m reliability.protections` (`make protections`). A protection whose removal is not detected is either not
needed or not tested. `catalogue` is the list, `cli` tries it; edits are made in a copy, as for `reliability.mutants`.
"""
