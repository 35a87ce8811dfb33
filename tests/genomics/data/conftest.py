"""A cache folder of its own for every test, and the embedded chromosomes as plain text."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from longscan.genomics.datasets import dataset_path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LONGSCAN_CACHE", str(folder))
    return folder / "fasta"


@pytest.fixture(scope="session")
def yeast_bytes() -> bytes:
    """The uncompressed FASTA file."""
    return gzip.decompress(dataset_path("saccharomyces_cerevisiae_chrI.fna.gz").read_bytes())


@pytest.fixture(scope="session")
def yeast_text(yeast_bytes: bytes) -> str:
    """The bases alone, sliced the slow and obvious way."""
    return "".join(yeast_bytes.decode().split("\n")[1:])
