"""The command line: what it lists, what it converts, and errors of one line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from longscan.__main__ import main

GOLDEN = Path(__file__).parent / "golden" / "genomics"


def failing(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must fail; return its one line of error."""
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("longscan: error: ")
    return error


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Both answer with status 0."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("longscan 0.")
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("genomics", "models", "convert", "demo"))


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    """All seven HyenaDNA and six Caduceus models are listed; patterns and domains choose."""
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert sum(line.startswith("hyenadna_") for line in text.splitlines()) == 7
    assert sum(line.startswith(("caduceus_ph_", "caduceus_ps_")) for line in text.splitlines()) == 6
    assert main(["models", "mamba*", "--domain", "core"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert main(["models", "--formats"]) == 0
    assert "caduceus-hf" in capsys.readouterr().out
    assert "no model matches" in failing(capsys, "models", "nothing*")


def test_convert_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Published format to ours to published: the same tensors, bit for bit."""
    from safetensors.torch import load_file

    source = GOLDEN / "caduceus-ps-a"
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "theirs"), "--to", "caduceus-hf"]) == 0
    before, after = load_file(source / "model.safetensors"), load_file(tmp_path / "theirs" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert "Caduceus with" in capsys.readouterr().out


def test_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each says what is wrong, in one line, with status 2."""
    assert "nearest: models" in failing(capsys, "modles")
    assert "required: source, destination" in failing(capsys, "convert")
    assert "unknown; nearest" in failing(capsys, "convert", "hyenadna_tiny_2k", str(tmp_path / "x"))
    assert "nearest: genomics" in failing(capsys, "demo", "genomic")
    (tmp_path / "a file").write_text("")
    below = tmp_path / "a file" / "model"
    assert "cannot be written" in failing(capsys, "convert", str(GOLDEN / "caduceus-ph-a"), str(below))
    damaged = tmp_path / "damaged"
    shutil.copytree(GOLDEN / "caduceus-ph-a", damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "cut short" in failing(capsys, "convert", str(damaged), str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()


def test_a_closed_pipe_is_no_error() -> None:
    """``longscan models | head -1`` ends quietly."""
    command = f"{sys.executable} -m longscan models | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("model")
    assert "Traceback" not in result.stderr
