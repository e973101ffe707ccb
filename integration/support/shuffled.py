"""The suite in random order of single tests: `python -m integration.support.shuffled [SEED]`.

It finds tests that depend on what another one leaves in a server, a file or this process. It prints the seed, which
reproduces the order.
"""

import random
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path

#: The number of seeds: short enough to type.
SEEDS = 1_000_000


def tests(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """Yield every test of a suite."""
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from tests(each)
        else:
            yield each


def main(seed: int) -> bool:
    """Run the suite in the order of `seed`; return whether it passed."""
    here = Path(__file__).parents[1]
    found = list(tests(unittest.TestLoader().discover(str(here), top_level_dir=str(here.parent))))
    random.Random(seed).shuffle(found)
    sys.stderr.write(f"the order of seed {seed}\n")
    return unittest.TextTestRunner().run(unittest.TestSuite(found)).wasSuccessful()


if __name__ == "__main__":
    chosen = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(SEEDS)
    sys.exit(not main(chosen))
