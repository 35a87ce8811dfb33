"""Where a run finds its configuration and puts its results. Nothing heavy is imported here."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ..errors import UserError, nearest


def packaged_configs() -> dict[str, Path]:
    """Return the configurations that ship with the package, by name such as ``genomics/quickstart``."""
    root = Path(str(resources.files("longscan"))) / "configs"
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def find_config(given: str, domain: str) -> tuple[str, Path]:
    """Return the name and the file of a configuration given by path or by name; the domain may be left out.

    Raises:
        UserError: there is no such file and no such name.
    """
    path = Path(given)
    if path.is_file():
        return path.stem, path
    configs = packaged_configs()
    for name in (given, f"{domain}/{given}"):
        if name in configs:
            return name, configs[name]
    own = [name for name in configs if name.startswith(f"{domain}/")]
    raise UserError(f"--config {given}: neither a file nor the name of a configuration; {nearest(given, own)}")


@dataclass(frozen=True)
class RunFolder:
    """The folder of one training run."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    def checkpoint(self, name: str) -> Path:
        """Return the path of the ``last`` or the ``best`` checkpoint.

        Raises:
            UserError: the run has none.
        """
        path = self.checkpoints / f"{name}.ckpt"
        if not path.is_file():
            raise UserError(f"--ckpt_path {name}: {path} does not exist; give the run with --output, or a path")
        return path

    @classmethod
    def of_checkpoint(cls, path: Path) -> RunFolder | None:
        """Return the run that a checkpoint belongs to, None where it lies somewhere else."""
        return cls(path.parent.parent) if path.parent.name == "checkpoints" else None


def newest_run(name: str) -> RunFolder:
    """Return the run of the configuration ``name`` under ``runs/`` whose last checkpoint is the newest."""
    found = Path("runs", name).glob("*/checkpoints/*.ckpt")
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise UserError(f"no run with a checkpoint under runs/{name}; give the run with --output, or a path")
    return RunFolder(newest.parent.parent)


def new_run(name: str) -> Path:
    """Return a path under ``runs/<name>`` named by the time, that does not exist yet."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path, number = Path("runs", name, stamp), 1
    while path.exists():
        number += 1
        path = Path("runs", name, f"{stamp}-{number}")
    return path


def check_writable(folder: Path, option: str = "--output") -> None:
    """Make ``folder`` and write to it, so that a long run does not fail at its first checkpoint.

    Args:
        folder: the folder.
        option: what to change where it cannot be written.

    Raises:
        UserError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write to the output folder {folder}: {error.strerror}; choose another with {option}"
        ) from error
