"""Tables that commands write, and the exit status of a training that was told to stop."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

from longscan.core.command_options import check_output, check_place, write_table
from longscan.core.errors import UserError
from longscan.core.training.cli import _status


def test_a_table(tmp_path: Path) -> None:
    """Names of files that are no UTF-8 keep their bytes; a cell cannot break a line or a column."""
    name = os.fsdecode(b"caf\xe9.png")
    write_table(tmp_path / "t.tsv", ["name", "ü"], [[name, "1"]])
    assert (tmp_path / "t.tsv").read_bytes() == "name\tü\n".encode() + b"caf\xe9.png\t1\n"
    for cell in ("a\tb", "a\nb", "a\rb"):
        with pytest.raises(UserError, match="a tab or line break"):
            write_table(tmp_path / "t.tsv", ["name"], [[cell]])


def test_places(tmp_path: Path) -> None:
    assert check_output(tmp_path / "new" / "o.tsv") == tmp_path / "new" / "o.tsv"
    with pytest.raises(UserError, match="is a folder; name a file in it"):
        check_output(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--folder .*file is no folder"):
        check_place(tmp_path / "file" / "in", "--folder")


def test_a_terminated_training_did_not_succeed() -> None:
    """Lightning ends with a SystemExit without a code, which would be success."""
    assert _status(SIGTERMException()) == 143
    assert _status(SystemExit()) == 0
    assert _status(SystemExit(3)) == 3
