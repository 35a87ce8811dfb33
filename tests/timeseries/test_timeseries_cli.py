"""``longscan timeseries`` answers ``--help`` at once; pictures; and how the demo puts its parts together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longscan.core.errors import UserError
from longscan.timeseries import demo, training
from longscan.timeseries.cli import VERBS
from longscan.timeseries.commands import backtest, evaluate, forecast
from longscan.timeseries.data import make_series
from longscan.timeseries.forecasts import Forecast
from longscan.timeseries.pictures import draw_error_by_step, draw_fan

#: The verbs with a parser of their own; those of training describe every class there is, so must import them.
OWN = [verb.name for verb in VERBS if verb.target.startswith("longscan.timeseries.commands.")]
_HEAVY = ("torch", "lightning", "pandas", "scipy", "matplotlib", "numpy")


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    lines = [["timeseries", "--help"], *(["timeseries", verb, "--help"] for verb in OWN)]
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
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=os.environ)
    assert ran.returncode == 0, ran.stderr
    assert OWN == ["forecast", "backtest", "detect", "classify", "impute", "evaluate"]
    assert json.loads(ran.stdout) == {verb: [] for verb in ["--help", *OWN]}


def test_the_list_of_commands(command: Any) -> None:
    outcome = command("timeseries --help")
    assert outcome.status == 0
    for verb in VERBS:
        assert f"  {verb.name} " in outcome.out
    outcome = command("timeseries forcast")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "nearest: forecast" in outcome.err


def test_baselines_need_no_torch(tmp_path: Path) -> None:
    """Seconds of imports that an analyst would wait for."""
    program = """
import sys
from longscan.__main__ import main
line = "timeseries evaluate --protocol ltsf --data ETTh1 --horizons 96 --lookback 24 --output out"
assert main(line.split()) == 0
print([name for name in ("torch", "lightning") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=os.environ)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "[]"


def test_pictures_are_written(tmp_path: Path) -> None:
    stamps = np.arange("2024-01-01", "2024-03-01", dtype="datetime64[D]").astype("datetime64[us]")
    series = make_series("a", stamps[:50], np.sin(np.arange(50)))
    spread = np.array([-1.0, 0.0, 1.0])[:, None, None]
    point = np.zeros((10, 1))
    one = Forecast("a", stamps[50:], point, (0.1, 0.5, 0.9), point + spread)
    paths = [
        draw_fan(tmp_path / "fan.png", series, one, actual=point),
        draw_error_by_step(tmp_path / "steps.png", {"x": [1.0, 2.0]}, "error"),
    ]
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
    assert sorted(os.listdir(tmp_path)) == ["fan.png", "steps.png"]


def test_the_order_of_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is fast of the demo: the order of its steps, and its tables."""
    ran: list[str] = []

    def step(verb: object, line: str, argv: list[str]) -> None:
        assert verb is training.fit
        ran.append(line)

    def scored(argv: list[str]) -> int:
        folder = Path(argv[argv.index("--output") + 1])
        folder.mkdir(parents=True)
        rows = [{"model": name, "mse": 0.5, "mae": 0.25, "windows": 7} for name in ("repeat-last", "x/model")]
        (folder / "scores.json").write_text(json.dumps({"scores": rows}))
        ran.append("evaluate")
        return 0

    def tested(argv: list[str]) -> int:
        folder = Path(argv[argv.index("--output") + 1])
        folder.mkdir(parents=True)
        lines = ["window,model,mae,mase,coverage_80", "0,run,1,2,0.75", "1,run,3,4,0.85", "0,repeat-last,9,9,0.5"]
        (folder / "windows.csv").write_text("\n".join(lines) + "\n")
        ran.append("backtest")
        return 0

    def ahead(argv: list[str]) -> int:
        ran.append("forecast")
        return 0

    monkeypatch.setattr(demo, "run_step", step)
    monkeypatch.setattr(evaluate, "evaluate", scored)
    monkeypatch.setattr(backtest, "backtest", tested)
    monkeypatch.setattr(forecast, "forecast", ahead)
    first, second = demo.run(tmp_path)
    assert ran == ["timeseries fit", "evaluate", "backtest", "forecast"]
    assert first.rows == [("repeat-last", "0.5000", "0.2500", "7"), ("S4D and a linear map", "0.5000", "0.2500", "7")]
    assert second.rows == [
        ("S4D and a linear map", "2.000", "3.000", "0.800"),
        ("repeat-last", "9.000", "9.000", "0.500"),
    ]


def test_a_step_of_the_demo_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(training, "fit", lambda argv: 2)
    with pytest.raises(UserError, match="the step `longscan timeseries fit --config timeseries/quickstart"):
        demo.run(tmp_path)
