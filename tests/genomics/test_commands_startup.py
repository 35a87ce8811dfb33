"""Commands answer ``--help`` without torch, and those that only ask a model never import lightning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import longscan
from longscan.genomics.cli import VERBS
from longscan.genomics.commands.options import check_output

#: The verbs with a parser of their own; those of training describe every class there is, so must import them.
OWN = [verb.name for verb in VERBS if verb.target.startswith("longscan.genomics.commands.")]
_HEAVY = ("torch", "lightning", "torchmetrics", "sklearn", "pyarrow", "matplotlib", "transformers")


def imported(lines: list[list[str]], folder: Path) -> dict[str, list[str]]:
    """Run commands one after another in one fresh process; return which of `_HEAVY` are there after each."""
    program = f"""
import contextlib, io, json, sys
from longscan.__main__ import main
found = {{}}
for line in {lines!r}:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main(line)
    assert len(out.getvalue()) > 10, line
    found[line[1]] = [name for name in {_HEAVY!r} if name in sys.modules]
print(json.dumps(found))
"""
    environment = os.environ | {"LONGSCAN_CACHE": str(folder)}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, env=environment)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    assert len(OWN) == 7
    found = imported([["genomics", "--help"], *(["genomics", verb, "--help"] for verb in OWN)], tmp_path)
    assert found == {verb: [] for verb in ["--help", *OWN]}


def test_asking_a_model_imports_no_lightning(tmp_path: Path) -> None:
    longscan.create_model("caduceus_ph_1k_d118", d_model=16, n_layer=1).save_pretrained(tmp_path / "m")
    (tmp_path / "g.fa").write_text(">c\n" + "ACGTTGCAAGGCTATT" * 8 + "\n")
    rows = (
        "##fileformat=VCFv4.2\n##contig=<ID=c>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\nc\t5\t.\tT\tA\t.\t.\t.\n"
    )
    (tmp_path / "v.vcf").write_text(rows)
    common = ["--model", "m", "--fasta", "g.fa"]
    lines = [
        ["genomics", "embed", *common, "--output", "e.npz"],
        ["genomics", "score-variants", *common, "--vcf", "v.vcf", "--window", "32", "--output", "s.tsv"],
        ["genomics", "check-rc", *common, "--window", "32", "--windows", "4"],
    ]
    found = imported(lines, tmp_path)
    assert found == {"embed": ["torch"], "score-variants": ["torch"], "check-rc": ["torch"]}


def test_data_modules_are_imported_when_asked_for() -> None:
    from longscan.genomics import data

    for name in data.__all__:
        assert getattr(data, name).__name__ == name
    assert set(data.__all__) <= set(dir(data))
    with pytest.raises(AttributeError, match=r"'longscan\.genomics\.data' has no attribute 'NoModule'"):
        _ = data.NoModule


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("check-rc --model m --fasta g.fa --seed -1", "'-1' is not a whole number from 0 to 4294967295"),
        ("generate --model m --output a.fa --seed 4294967296", "'4294967296' is not a whole number from 0"),
        ("probe --model m --table t.tsv --seed 1.5", "'1.5' is not a whole number from 0"),
    ],
)
def test_seeds_that_no_generator_takes(command: Any, line: str, message: str) -> None:
    outcome = command(f"genomics {line}")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert message in outcome.err


@pytest.mark.parametrize(
    "line",
    [
        "embed --model none --fasta embedded:yeast1 --output file/o.npz",
        "score-variants --model none --fasta embedded:yeast1 --vcf v.vcf --output file/o.tsv",
        "mutate --model none --fasta embedded:yeast1 --region chrI:1-9 --output file/o.tsv",
        "mutate --model none --fasta embedded:yeast1 --region chrI:1-9 --output o.tsv --plot file/o.png",
        "generate --model none --output file/o.fa",
        "probe --model none --table t.tsv --output file/o.tsv",
        "check-rc --model none --fasta embedded:yeast1 --json file/o.json",
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_any_work(command: Any, line: str) -> None:
    Path("file").write_text("not a folder")
    outcome = command(f"genomics {line}")
    assert outcome.status == 2
    assert "is no folder; write elsewhere" in outcome.err
    assert outcome.err.count("\n") == 1


def test_outputs(tmp_path: Path) -> None:
    assert check_output(tmp_path / "new" / "deeper" / "o.npz") == tmp_path / "new" / "deeper" / "o.npz"
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match=r"--json .* is a folder; name a file in it"):
        check_output(tmp_path, "--json")
