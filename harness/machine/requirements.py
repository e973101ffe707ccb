"""Lists the packages of setup.cfg, one a line, for a virtual environment without a build of the project.

    python -m harness.machine.requirements           # what the project needs
    python -m harness.machine.requirements dev       # what its extra `dev` adds
    python -m harness.machine.requirements --link DIRECTORY

An editable install would need setuptools, a fourth package on machines without an index. `--link` writes a path file,
as an editable install does, so that this interpreter finds the packages of a checkout.
"""

import argparse
import configparser
import sys
import sysconfig
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]

PATH_FILE = "runtime-manager-checkout.pth"


def listed(extra: str = "") -> list[str]:
    """The packages of an extra, or those that the project needs; raises KeyError for an unknown extra."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(CHECKOUT / "setup.cfg")
    text = settings["options.extras_require"][extra] if extra else settings["options"]["install_requires"]
    return text.split()


def link(checkout: Path) -> Path:
    """Make the packages of `checkout` importable for this interpreter; returns the path file."""
    file = Path(sysconfig.get_path("purelib")) / PATH_FILE
    file.write_text(f"{checkout.absolute()}\n")
    return file


def main(argv: list[str] | None = None) -> int:
    """Print the list, or write the path file."""
    parser = argparse.ArgumentParser(prog="python -m harness.machine.requirements")
    parser.add_argument("extra", nargs="?", default="")
    parser.add_argument("--link", type=Path, metavar="DIRECTORY")
    arguments = parser.parse_args(argv)
    if arguments.link:
        link(arguments.link)
    else:
        sys.stdout.write("".join(f"{each}\n" for each in listed(arguments.extra)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
