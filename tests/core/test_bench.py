"""``longscan bench``: the table, the JSON, peers that are missing or run out of memory, and the limits of a chip."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from longscan.__main__ import main
from longscan.core.benchmark import bidirectional_scan, results, selective_scan, selective_state_update, short_conv
from longscan.core.benchmark.chip import Chip
from longscan.core.benchmark.command import OPERATORS
from longscan.core.benchmark.contests import Contest, Options
from longscan.core.benchmark.timing import Measurement

CPU = Options(device="cpu", dtype=torch.float32, shapes="small", backward=False)


def test_the_verb_measures_every_operator_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "results.json"
    line = f"bench --shapes small --device cpu --dtype bf16 --backward --repeats 2 --output {path}"
    assert main(line.split()) == 0
    printed = capsys.readouterr().out
    assert f"wrote {path}" in printed
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]
    data = json.loads(path.read_text())
    assert data["setting"]["dtype"] == "bfloat16"
    assert data["setting"]["torch"] == torch.__version__.split("+")[0]
    assert {"date", "cpu", "method", "mamba-ssm", "triton"} <= data["setting"].keys()
    assert tuple(dict.fromkeys(row["operator"] for row in data["results"])) == OPERATORS
    for row in data["results"]:
        assert row["floor_seconds"] is None
        assert row["pass"] in ("forward", "forward+backward")
        assert 0 < row["ours"]["seconds"] < 60
        assert row["ours"]["repeats"] in (1, 2)
        for peer in row["peers"].values():
            assert peer["ratio"] == pytest.approx(peer["seconds"] / row["ours"]["seconds"])
        shape = " ".join(f"{key} {value}" for key, value in row["shape"].items())
        assert any(text.startswith(row["operator"]) and shape in text for text in printed.splitlines())
    scan = next(row for row in data["results"] if row["operator"] == "selective_scan")
    assert list(scan["peers"]) == ["plain torch"]


def test_one_operator_forward_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    line = f"bench --operators short_conv,residual_norm --shapes small --device cpu --repeats 1 --output {path}"
    assert main(line.split()) == 0
    found = [(row["operator"], row["pass"]) for row in json.loads(path.read_text())["results"]]
    assert found == [("short_conv", "forward")] * 2 + [("residual_norm", "forward")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--operators selective_scam", "--operators: 'selective_scam' is unknown; nearest: selective_scan"),
        ("--operators ,", "need at least one operator"),
        ("--repeats 0", "at least one operator and one run"),
        ("--dtype bf15", "invalid choice: 'bf15'"),
        pytest.param(
            "--device cuda",
            "--device cuda: torch sees no GPU here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU"),
        ),
    ],
)
def test_mistakes_are_one_line(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *line.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_help_imports_no_torch() -> None:
    code = (
        "import sys\nfrom longscan.__main__ import main\n"
        "try: main(['bench', '--help'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--operators" in done.stdout


def contest(ours: Any, **peers: Any) -> Contest:
    return Contest("selective_scan", {"batch": 1}, False, ours, peers, 4_000_000, 10_000_000)


def test_peers_that_are_missing_or_run_out_of_memory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def missing() -> Any:
        raise ModuleNotFoundError("No module named 'mamba_ssm'", name="mamba_ssm")

    def half_there() -> Any:
        raise ImportError("undefined\nsymbol")

    def greedy() -> Any:
        def step() -> None:
            raise torch.OutOfMemoryError("too much")

        return step

    def broken() -> Any:
        raise RuntimeError("a mistake of ours")

    chip = Chip(bandwidth=2e12, clock=1e9, multiprocessors=100)
    outcomes = results.run([contest(lambda: lambda: None, a=missing, b=half_there, greedy=greedy)], CPU, chip, 3)
    wanted = {"a": "not installed", "b": "import fails: undefined symbol", "greedy": "out of memory"}
    assert outcomes[0].peers == wanted
    results.show({}, outcomes)
    printed = capsys.readouterr().out
    assert "not installed" in printed
    assert "out of memory" in printed
    results.write(tmp_path / "r.json", {}, outcomes)
    peers = json.loads((tmp_path / "r.json").read_text())["results"][0]["peers"]
    assert peers["greedy"] == {
        "seconds": None,
        "repeats": 0,
        "peak_bytes": None,
        "note": "out of memory",
        "ratio": None,
    }
    assert results.run([contest(greedy, other=lambda: lambda: None)], CPU, chip, 1)[0].ratio("other") is None
    with pytest.raises(ImportError, match="undefined"):
        results.run([contest(half_there)], CPU, None, 1)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        results.run([contest(broken)], CPU, None, 1)


def test_the_floor_is_the_slower_of_memory_and_exponentials() -> None:
    chip = Chip(bandwidth=2e12, clock=1e9, multiprocessors=100)  # 1.6e12 exponentials a second
    assert chip.floor(4_000_000, 0) == pytest.approx(2e-6)
    assert chip.floor(4_000_000, 16_000_000) == pytest.approx(1e-5)
    assert chip.floor(0, 0) is None
    assert Chip(2e12, None, 100).floor(4_000_000, 16_000_000) is None
    outcome = results.Outcome(contest(lambda: lambda: None), Measurement(4e-5, 3, 0), 1e-5, {})
    assert outcome.fraction_of_floor == pytest.approx(0.25)
    # The scan of the largest shape: u, delta, z, y, B and C once in bfloat16, an exponential for each state.
    options = Options(device="cpu", dtype=torch.bfloat16, shapes="large", backward=False)
    assert selective_scan.work(options, 8, 2048, 1536) == (8 * 2048 * (4 * 1536 + 32) * 2, 8 * 2048 * 1536 * 16)
    both = next(bidirectional_scan.contests(options))
    batch, length, dim = bidirectional_scan.LARGE[0]
    # u, z and y once; delta, B and C for each direction.
    assert both.bytes_moved == batch * length * (3 * dim + 2 * (dim + 32)) * 2
    assert both.exponentials == 2 * batch * length * dim * 16


def test_peers_get_contiguous_tensors_in_their_own_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for the packages check what they are called with, and are measured in place of them."""
    calls: list[str] = []

    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, **rest: Any) -> Tensor:
        assert rest.keys() == {"delta_bias", "delta_softplus"}
        assert u.shape == delta.shape == z.shape == (2, 64, u.shape[-1])
        assert B.shape == C.shape == (2, 16, u.shape[-1])
        assert all(tensor.is_contiguous() for tensor in (u, delta, z, B, C))
        assert {A.dtype, D.dtype, rest["delta_bias"].dtype} == {torch.float32}
        calls.append("scan")
        return u * delta * z * D[:, None] * B.sum() * C.sum() * A.sum() * rest["delta_bias"].sum()

    def conv(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
        assert x.shape == (2, 64, 256)
        assert x.is_contiguous()
        assert weight.shape == (64, 4)
        calls.append(activation)
        return x * weight.sum() + bias[:, None]

    def update(state: Tensor, *rest: Any) -> None:
        shapes = [tuple(tensor.shape) for tensor in rest[:-1]]
        assert shapes == [(1, 64), (1, 64), (64, 16), (1, 16), (1, 16), (64,), (1, 64), (64,)]
        assert state.shape == (1, 64, 16)
        calls.append("update")

    for name, attribute, function in (
        ("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn", scan),
        ("mamba_ssm.ops.triton.selective_state_update", "selective_state_update", update),
        ("causal_conv1d", "causal_conv1d_fn", conv),
    ):
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            package = ".".join(parts[:count])
            monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        setattr(sys.modules[name], attribute, function)
    for backward in (False, True):
        shape = selective_scan.SMALL[0]
        for maker in (
            selective_scan._mamba_ssm(CPU, shape, backward),
            bidirectional_scan._mamba_ssm(CPU, bidirectional_scan.SMALL[0], backward),
            short_conv._maker(CPU, short_conv.SMALL[0], backward, "causal-conv1d"),
        ):
            found = maker()()
            assert isinstance(found, tuple) == backward
    selective_state_update._maker(CPU, 1, 64, "mamba-ssm")()()
    assert calls == [*["scan"] * 3, "silu"] * 2 + ["update"] * 16
