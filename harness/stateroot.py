"""A directory of a test's own under which games keep their state, and where a failed test leaves its traces.

It lies under one directory per user, RTM_IT_STATE_DIR or a folder of the system's temporary directory, and
names its runner in a file, so that a later run can sweep what a killed run left. What is kept for a look is
never swept.
"""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness import runner

_OWNER_FILE = ".runner.json"


def base_directory() -> Path:
    """Where state roots are made; created when missing."""
    default = Path(tempfile.gettempdir()) / f"runtime-manager-it-{os.getuid()}"
    base = Path(os.environ.get("RTM_IT_STATE_DIR") or default)
    base.mkdir(parents=True, exist_ok=True)
    return base


def directories() -> list[Path]:
    """The directories that are there, of this run and of others."""
    return [each for each in base_directory().iterdir() if each.is_dir()]


@dataclass(frozen=True)
class StateRoot:
    """One test's directory."""

    directory: Path

    @property
    def games(self) -> Path:
        """What RTMANAGER_GAME_STATE_ROOT takes."""
        return self.directory / "games"

    @property
    def logs(self) -> Path:
        """Where the logs of the test go."""
        return self.directory / "logs"

    def keep(self) -> Path:
        """Leave it there for a person to look at; its path."""
        (self.directory / _OWNER_FILE).unlink(missing_ok=True)
        return self.directory

    def remove(self) -> None:
        """Remove it with all that games wrote into it."""
        remove(self.directory)


def create(name: str = "test") -> StateRoot:
    """Make a state root; `name` tells a person which test it is of."""
    root = StateRoot(Path(tempfile.mkdtemp(prefix=f"{name}-", dir=base_directory())))
    (root.directory / _OWNER_FILE).write_text(json.dumps(runner.current().labels()))
    # The engine runs as a user of its own and must reach its directory.
    root.directory.chmod(0o755)
    root.games.mkdir()
    root.logs.mkdir()
    return root


def owner(directory: Path) -> runner.Runner | None:
    """The runner that made `directory`; None when it was kept, or is none of ours."""
    try:
        return runner.Runner.from_labels(json.loads((directory / _OWNER_FILE).read_text()))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None


def remove(directory: Path) -> None:
    """Remove a state root; what the engine's user wrote is removed through a container where we may not."""
    try:
        _remove_tree(directory)
    except PermissionError:
        _remove_as_root(directory)
        _remove_tree(directory)


def _remove_tree(directory: Path) -> None:
    """As shutil.rmtree, where somebody else may be removing the same."""
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        if directory.exists():
            _remove_tree(directory)


def _remove_as_root(directory: Path) -> None:
    from harness import container, images

    inside = "/state-root"
    script = f"import shutil, pathlib; [shutil.rmtree(p) for p in pathlib.Path('{inside}/games').iterdir()]"
    mount = container.Mount(directory, inside)
    with container.start(
        images.engine().ref,
        entrypoint=["python3", "-c", script],
        mounts=[mount],
        user="0:0",
        host_config={"network_mode": "none"},
    ) as cleaner:
        cleaner.wait_for_exit()
