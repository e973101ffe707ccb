"""What keeps things from being lost, taken out one at a time: the crash matrix, chaos or a test has to notice.

`python -m reliability.protections` (`make protections`). A protection that can be taken out unnoticed is either not
needed or not tested. `catalogue` is the list, `cli` tries it; edits are made in a copy, as for `reliability.mutants`.
"""
