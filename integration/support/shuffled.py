"""The suite in random order, every test by itself: `python -m integration.support.shuffled [SEED]`.

What one test leaves behind in a server, a file or this process would be met by another test than usual. The
seed is printed, and gives the same order again.
"""

import random
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path

#: Seeds that a person can type.
SEEDS = 1_000_000


def tests(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """Every test of a suite, one by one."""
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from tests(each)
        else:
            yield each


def main(seed: int) -> bool:
    """Run the suite in the order of `seed`; whether it passed."""
    here = Path(__file__).parents[1]
    found = list(tests(unittest.TestLoader().discover(str(here), top_level_dir=str(here.parent))))
    random.Random(seed).shuffle(found)
    sys.stderr.write(f"the order of seed {seed}\n")
    return unittest.TextTestRunner().run(unittest.TestSuite(found)).wasSuccessful()


if __name__ == "__main__":
    chosen = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(SEEDS)
    sys.exit(not main(chosen))
