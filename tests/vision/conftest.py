"""A folder of made-up images in two classes, and a small model trained on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_runs import run
from image_files import FIT, write_classes


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``dark`` and ``light``, 20 images of 8 × 8 pixels each."""
    return write_classes(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def classifier(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a run: a Vim that tells dark from light images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("classifier"))
        patch.setattr("sys.argv", ["longscan"])
        outcome = run(f"{FIT} --data.folder {pictures} --data.channels 3 --output run")
        assert outcome.status == 0, outcome.err
        yield Path("run").absolute()
