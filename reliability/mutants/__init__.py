"""Mutation tests: break the Runtime Manager in one place at a time; a check must then fail.

    python -m reliability.mutants --quick                the edits that the suite must detect
    python -m reliability.mutants                        the same, each against the whole suite
    python -m reliability.mutants --group protections    protections against loss, removed
    python -m reliability.mutants wrong-mount            one by its name, of any group

A mutant is an edit of the source with an effect that a user would notice. It is made in a copy of the tree. The check
is a test, cells of the crash matrix or a chaos run. A surviving mutant shows a missing test, or code without need.
"""
