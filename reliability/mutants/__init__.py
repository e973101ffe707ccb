"""Does the suite catch faults? The Runtime Manager is broken on purpose, in one place at a time.

    python -m reliability.mutants --quick        each mutant against the module that should catch it
    python -m reliability.mutants                each against the whole suite
    python -m reliability.mutants wrong-mount    one of them

A mutant is a small edit of the source that a user would notice. It is made in a copy of the tree, never in the
tree itself, and the suite has to fail on the copy; a mutant that survives shows a test that is missing.
"""
