"""Small tables, and a model trained on one of them, which several tests ask."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_runs import run
from series_tables import FIT, sales, wide


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Folder with ``sales.csv`` (long) and ``wide.csv``."""
    sales().to_csv(tmp_path / "sales.csv", index=False)
    wide().to_csv(tmp_path / "wide.csv", index=False)
    return tmp_path


@pytest.fixture(scope="session")
def panel_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run on `sales`."""
    folder = tmp_path_factory.mktemp("panel")
    sales().to_csv(folder / "sales.csv", index=False)
    outcome = run(f"{FIT} --data.source {folder / 'sales.csv'} --output {folder / 'run'}")
    assert outcome.status == 0, outcome.err
    return folder / "run"
