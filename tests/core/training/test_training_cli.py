"""The training verbs from the command line: runs, folders, resuming, and each mistake in one line."""

from __future__ import annotations

import json
import re
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from toy_training import assert_same, processes, run_command, run_command_in_process

from longscan.core.training import run_files
from longscan.core.training.cli import one_line

CONFIG: dict[str, Any] = {
    "trainer": {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 2},
    "checkpoint": {"every_n_steps": 3, "monitor": "val/accuracy", "mode": "max"},
    "model": {
        "class_path": "ClassificationTask",  # by its bare name: it has been imported
        "init_args": {
            "model": {"class_path": "toy_training.ToyClassifier"},
            "optimizer": {"lr": 0.3},
            "schedule": {"warmup_fraction": 0.1},
        },
    },
    "data": {"class_path": "ToyClasses"},
}

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a verb in an empty folder that holds toy.yaml; gives status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["longscan"])
    Path("toy.yaml").write_text(yaml.safe_dump(CONFIG))

    def run(line: str) -> tuple[int, str, str]:
        status = run_command(*shlex.split(line))
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_fit_test_and_predict(command: Command) -> None:
    status, out, _ = command("fit --config toy.yaml")
    assert status == 0
    (folder,) = Path("runs", "toy").iterdir()
    result = json.loads((folder / "metrics.json").read_text())
    assert result["steps"] == 24
    assert result["best"]["value"] > 0.7  # chance is 1/3
    written = ["metrics.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "confusion_val.png"]
    written += ["learning_curves.png", "csv/version_0/metrics.csv", "config.yaml"]
    for name in written:
        assert (folder / name).is_file(), name
    assert list((folder / "tensorboard").glob("events*"))
    assert f"{folder}/metrics.json" in out
    assert "decay: " in out

    status, out, _ = command("test --config toy.yaml --ckpt_path best")
    assert status == 0
    tested = json.loads((folder / "test" / "metrics.json").read_text())
    assert tested["verb"] == "test"
    assert {"test/near/accuracy", "test/far/mcc"} <= set(tested["metrics"])
    assert (folder / "test" / "confusion_test_far.png").is_file()

    # A checkpoint in a run needs no configuration.
    status, out, _ = command(f"predict --ckpt_path {folder}/checkpoints/best.ckpt --predictions table.tsv")
    assert (status, out) == (0, "table.tsv\n")
    rows = [line.split("\t") for line in Path("table.tsv").read_text().splitlines()]
    assert rows[0] == ["name", "prediction", "probability"]
    assert [row[0] for row in rows[1:]] == [f"read{index}" for index in range(5)]
    assert {row[1] for row in rows[1:]} <= {"A", "C", "G"}
    assert all(1 / 3 < float(row[2]) <= 1 for row in rows[1:])


def test_a_run_is_resumed_and_never_overwritten(command: Command) -> None:
    assert command("fit --config toy.yaml --output whole")[0] == 0
    assert (
        command("fit --config toy.yaml --output parts --trainer.limit_train_batches 5 --trainer.max_epochs 1")[0] == 0
    )
    assert command("fit --config toy.yaml --output whole")[::2] == (
        2,
        "longscan: error: whole already holds a run: resume it with --ckpt_path last, or choose another --output\n",
    )
    assert command("fit --config toy.yaml --output parts --ckpt_path last")[0] == 0
    config = yaml.safe_load(Path("parts/config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 2
    assert config["model"]["class_path"] == "longscan.core.training.tasks.ClassificationTask"
    # One epoch of 5 steps, then one of 12.
    assert json.loads(Path("parts/metrics.json").read_text())["steps"] == 17
    assert sorted(path.name for path in Path("parts/csv").iterdir()) == ["version_0", "version_1"]


def _start(argv: list[str], folder: Path, log: Path) -> int:
    process = processes().Process(target=run_command_in_process, args=(argv, str(folder), str(log)))
    process.start()
    process.join()
    return process.exitcode


def test_interrupt_prints_the_command_that_resumes(tmp_path: Path) -> None:
    config = CONFIG | {
        "trainer": CONFIG["trainer"]
        | {
            "callbacks": [
                {
                    "class_path": "toy_training.Recorder",
                    "init_args": {"path": "batches.txt", "at": 16, "number": int(signal.SIGINT)},
                }
            ]
        }
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "stopped.yaml").write_text(yaml.safe_dump(config))
    log = tmp_path / "log.txt"
    assert _start(["fit", "--config", "toy.yaml", "--output", "whole"], tmp_path, log) == 0
    assert _start(["fit", "--config", "stopped.yaml", "--data.num_workers=1"], tmp_path, log) == 130
    text = log.read_text()
    saved = re.findall(r"^saved (.*)$", text, flags=re.MULTILINE)[-1]
    assert (tmp_path / saved).is_file()
    assert "Traceback" not in text
    words = shlex.split(re.findall(r"^resume with: (.*)$", text, flags=re.MULTILINE)[-1])
    assert words[:3] == ["longscan", "genomics", "fit"]
    assert words[words.index("--ckpt_path") + 1] == saved
    assert "--data.num_workers=1" in words
    # The recorder counts from the resumption, and 7 batches are left.
    assert _start(words[2:], tmp_path, log) == 0
    whole = torch.load(tmp_path / "whole" / "checkpoints" / "last.ckpt", weights_only=True)
    resumed = torch.load(tmp_path / saved, weights_only=True)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert_same(whole[key], resumed[key], key)


BAD = {
    "fit": "arguments are required: data, model; a configuration gives them",
    "fit --config": "--config needs a value",
    "fit --config tooy": "--config tooy: neither a file nor the name of a configuration",
    "fit --config toy.yaml --trainer.max_epochs many": "trainer.max_epochs: expected int, got many",
    "fit --config toy.yaml --trainer.epochs 3": "unrecognized arguments: --trainer.epochs",
    "fit --config toy.yaml --model.class_path ClasificationTask": "no class is called 'ClasificationTask'; nearest:",
    "fit --config toy.yaml --model.optimizer.lr -1": "optimizer.lr must be positive, got -1.0",
    "fit --config toy.yaml --model.optimizer null": "a group of settings, such as model.optimizer, is null; leave it",
    "fit --config toy.yaml --model.finetuning.lora null": "give the group, as in --model.finetuning '{lora: null}'",
    "fit --config toy.yaml --model.optimizer.name adagrad": "model.optimizer.name: expected one of [",
    "fit --config toy.yaml --model.schedule.warmup_steps 2": "give warmup_steps or warmup_fraction, not both",
    "fit --config toy.yaml --data.batch_size two": "data.batch_size: expected int, got two",
    "fit --config toy.yaml --data.foo 1": "data: Option 'foo' is not accepted",
    "fit --config toy.yaml --data.batch_size 0": "batch_size and eval_batch_size must be at least 1",
    "fit --config toy.yaml --data.bad_index 3": "reads.fa: record 3 has no sequence; remove it",
    "fit --config toy.yaml --data.bad_index 3 --data.num_workers 1": "error: reads.fa: record 3 has no sequence; rem",
    "fit --config toy.yaml --trainer.max_epochs -1": "the cosine schedule needs an end",
    "fit --config toy.yaml --trainer.accelerator gpu": "gpu",
    "fit --config toy.yaml --checkpoint.monitor val/acuracy": "no metric is called 'val/acuracy'; nearest: val/acc",
    "fit --config toy.yaml --output toy.yaml/run": "cannot write to the output folder toy.yaml/run: Not a directory",
    "fit --config toy.yaml --ckpt_path gone.ckpt": "--ckpt_path gone.ckpt: no such file",
    "fit --config toy.yaml --ckpt_path last": "no run with a checkpoint under runs/toy",
    "fit --config toy.yaml --ckpt_path toy.yaml": "toy.yaml: is no torch checkpoint or is damaged",
    "fit --config toy.yaml --ckpt_path cut.ckpt": "cut.ckpt: is cut short or damaged",
    "fit --config toy.yaml --ckpt_path code.ckpt": "code.ckpt: refused, since it holds pickled code (pathlib",
    "fit --config toy.yaml --ckpt_path weights.ckpt": "weights.ckpt lacks pytorch-lightning_version, loops",
    "test --config toy.yaml --ckpt_path weights.ckpt": "weights.ckpt lacks pytorch-lightning_version: it is",
    "test --config toy.yaml --ckpt_path other.ckpt": "other.ckpt is of another model than the configuration describes:",
    "predict --config toy.yaml --predictions toy.yaml/table.tsv": "cannot write to the output folder toy.yaml",
}


@pytest.mark.parametrize("line", BAD)
def test_mistakes_are_one_line(line: str, command: Command) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(300)}}, "weights.ckpt")
    torch.save({"state_dict": {"weight": torch.zeros(3)}, "pytorch-lightning_version": "2.6.6"}, "other.ckpt")
    Path("cut.ckpt").write_bytes(Path("weights.ckpt").read_bytes()[:900])
    torch.save({"state_dict": {}, "code": Path("x")}, "code.ckpt")
    status, _, err = command(line)
    assert status == 2
    (message,) = [text for text in err.splitlines() if text]
    assert message.startswith("longscan: error: ")
    assert BAD[line] in message
    assert len(message) < 420


def test_packaged_configurations_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "quickstart.yaml"
    path.write_text("")
    monkeypatch.setattr(run_files, "packaged_configs", lambda: {"genomics/quickstart": path, "audio/other": path})
    assert run_files.find_config("genomics/quickstart", "genomics") == ("genomics/quickstart", path)
    assert run_files.find_config("quickstart", "genomics") == ("genomics/quickstart", path)
    assert run_files.find_config(str(path), "genomics") == ("quickstart", path)
    with pytest.raises(ValueError, match=r"nearest: genomics/quickstart$"):
        run_files.find_config("quickstrat", "genomics")
    monkeypatch.undo()
    assert all(
        name.split("/")[0] in ("genomics", "audio", "vision", "timeseries") for name in run_files.packaged_configs()
    )


def test_one_line_of_a_worker_error() -> None:
    text = (
        "Caught UserError in DataLoader worker process 0.\nTraceback\n  x\nlongscan.core.errors.UserError: a.fa: bad\n"
    )
    assert one_line(ValueError(text)) == "a.fa: bad"
    assert one_line(ValueError("two\n  lines")) == "two lines"


def test_importing_the_command_line_is_light() -> None:
    import subprocess

    code = "import sys, longscan.core.training.cli; print('torch' in sys.modules or 'lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
