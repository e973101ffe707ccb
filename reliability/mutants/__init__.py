"""Mutation tests: break the Runtime Manager in one place at a time, and check that the suite fails.

    python -m reliability.mutants --quick        each mutant against the module that should catch it
    python -m reliability.mutants                each against the whole suite
    python -m reliability.mutants wrong-mount    one of them

A mutant is a small edit of the source that a user would notice. It is made in a copy of the tree, never in the tree
itself, and the suite must fail on the copy. A surviving mutant shows a missing test.
"""
