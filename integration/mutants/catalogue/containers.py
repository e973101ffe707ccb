"""What a game's container is, and what walls it in."""

from integration.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        name="label-missing",
        breaks="a game's container cannot be told from others by its kind",
        file="rtmanager/domain/container.py",
        old="            LABEL_KIND: KIND,\n",
        new="",
        module="test_container",
    ),
    Mutant(
        name="ports-published",
        breaks="every game listens on a port of the host",
        file="rtmanager/adapters/docker/hardening.py",
        old='        "PublishAllPorts": False,\n',
        new='        "PublishAllPorts": True,\n',
        module="test_container",
    ),
    Mutant(
        name="capabilities-kept",
        breaks="a game keeps the capabilities that Docker gives by default",
        file="rtmanager/adapters/docker/hardening.py",
        old='        "CapDrop": ["ALL"],\n',
        new='        "CapDrop": [],\n',
        module="test_container",
    ),
    Mutant(
        name="root-writable",
        breaks="a game may write anywhere in its container",
        file="rtmanager/adapters/docker/hardening.py",
        old='        "ReadonlyRootfs": True,\n',
        new='        "ReadonlyRootfs": False,\n',
        module="test_container",
    ),
    Mutant(
        name="swap-unlimited",
        breaks="a game that outgrows its memory takes the host's swap",
        file="rtmanager/adapters/docker/hardening.py",
        old='        "MemorySwap": spec.limits.memory_bytes,',
        new='        "MemorySwap": -1,',
        module="test_container",
    ),
    Mutant(
        name="limits-of-image-ignored",
        breaks="the limits that an image asks for are not the game's",
        file="rtmanager/operations/launch.py",
        old="        limits=limits,\n",
        new="        limits=settings.default_limits,\n",
        module="test_container",
    ),
    Mutant(
        name="wrong-mount",
        breaks="a game's state is written where it is lost with the container",
        file="rtmanager/adapters/docker/hardening.py",
        old='                "Target": spec.mount_path,\n',
        new='                "Target": "/srv",\n',
        module="test_container",
    ),
    Mutant(
        name="directory-open-to-all",
        breaks="a game's directory has neither the owner nor the mode that were configured",
        file="rtmanager/adapters/state_directories.py",
        old="                self._adjust(directory)\n",
        new="                os.fchmod(directory, 0o777)\n",
        module="test_container",
    ),
)
