"""The list of mutants, grouped by the guarantee that they break."""

from collections.abc import Sequence

from reliability.mutants.catalogue import answers, containers, lifetime, messages, operations, stores, watching
from reliability.mutants.mutant import Mutant

MUTANTS: Sequence[Mutant] = (
    *answers.MUTANTS,
    *messages.MUTANTS,
    *operations.MUTANTS,
    *containers.MUTANTS,
    *lifetime.MUTANTS,
    *stores.MUTANTS,
    *watching.MUTANTS,
)
