"""The settings of a game's container, and its isolation."""

from reliability.mutants.check import module
from reliability.mutants.mutant import Edit, Mutant

MUTANTS = (
    Mutant(
        "label-missing",
        "a game's container has no label of its kind",
        Edit("domain/container.py", "            LABEL_KIND: KIND,\n", ""),
        check=module("test_container"),
    ),
    Mutant(
        "ports-published",
        "every game listens on a port of the host",
        Edit(
            "adapters/docker/hardening.py", '        "PublishAllPorts": False,\n', '        "PublishAllPorts": True,\n'
        ),
        check=module("test_container"),
    ),
    Mutant(
        "capabilities-kept",
        "a game keeps the capabilities that Docker gives by default",
        Edit("adapters/docker/hardening.py", '        "CapDrop": ["ALL"],\n', '        "CapDrop": [],\n'),
        check=module("test_container"),
    ),
    Mutant(
        "root-writable",
        "a game may write anywhere in its container",
        Edit("adapters/docker/hardening.py", '        "ReadonlyRootfs": True,\n', '        "ReadonlyRootfs": False,\n'),
        check=module("test_container"),
    ),
    Mutant(
        "swap-unlimited",
        "a game that outgrows its memory takes the host's swap",
        Edit(
            "adapters/docker/hardening.py",
            '        "MemorySwap": spec.limits.memory_bytes,',
            '        "MemorySwap": -1,',
        ),
        check=module("test_container"),
    ),
    Mutant(
        "limits-of-image-ignored",
        "the limits in the labels of an image are not applied to the game",
        Edit("operations/launch.py", "        limits=limits,\n", "        limits=settings.default_limits,\n"),
        check=module("test_container"),
    ),
    Mutant(
        "wrong-mount",
        "a game's state is written where it is lost with the container",
        Edit(
            "adapters/docker/hardening.py",
            '                "Target": spec.mount_path,\n',
            '                "Target": "/srv",\n',
        ),
        check=module("test_container"),
    ),
    Mutant(
        "directory-open-to-all",
        "a game's directory has neither the owner nor the mode that were configured",
        Edit(
            "adapters/state_directories.py",
            "                self._adjust(directory)\n",
            "                os.fchmod(directory, 0o777)\n",
        ),
        check=module("test_container"),
    ),
    Mutant(
        "any-daemon-is-the-one-on-record",
        "on another daemon every running game is recorded as removed",
        Edit("operations/one_daemon.py", "        match = recorded.compare(seen)\n", "        match = Match.SAME\n"),
        check=module("test_daemon"),
    ),
    Mutant(
        "no-container-is-of-another-deployment",
        "two databases on one daemon take each other's containers",
        Edit(
            "domain/container.py",
            '    return label not in ("", deployment)\n',
            "    return False\n",
        ),
        check=module("test_daemon"),
    ),
)
