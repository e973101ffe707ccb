"""The mutants: edits that the suite must detect, by the guarantee that they break, and removed protections."""

from collections.abc import Mapping, Sequence

from reliability.mutants.catalogue import (
    answers,
    containers,
    lifetime,
    messages,
    operations,
    protections,
    stores,
    watching,
)
from reliability.mutants.mutant import Mutant

#: What one command runs: `make mutants`, `make protections`.
GROUPS: Mapping[str, Sequence[Mutant]] = {
    "mutants": (
        *answers.MUTANTS,
        *messages.MUTANTS,
        *operations.MUTANTS,
        *containers.MUTANTS,
        *lifetime.MUTANTS,
        *stores.MUTANTS,
        *watching.MUTANTS,
    ),
    "protections": protections.MUTANTS,
}
