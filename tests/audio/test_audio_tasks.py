"""The tasks of audio through the training verbs: they learn, measure what they say, and keep the card of their data."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

import longscan
from longscan.audio.card import AudioCard
from longscan.audio.data import AudioTokenDataModule
from longscan.audio.metrics.spectral import MultiResolutionSTFT
from longscan.audio.metrics.waveform import mean_absolute_error
from longscan.audio.models.noise_schedule import NoiseSchedule
from longscan.audio.tasks import AudioClassification, EffectRegression, WaveformDiffusion, WaveformModeling
from longscan.core.errors import UserError

QUIET = "--trainer.accelerator cpu --trainer.enable_progress_bar false --data.num_workers 0"


def metrics(folder: str) -> dict[str, float]:
    return json.loads((Path(folder) / "metrics.json").read_text())["metrics"]


def test_classification_learns_and_survives_half_the_rate(command: Any, classifier: Path) -> None:
    """Sines of 300 Hz and 2 kHz, told apart at 8 kHz and, with every other sample and rate 2, at 4 kHz."""
    outcome = command(
        f"audio test --ckpt_path {classifier}/checkpoints/best.ckpt --output tested --model.resamplings [2]"
    )
    assert outcome.status == 0, outcome.err
    found = metrics("tested")
    assert found["test/accuracy"] == 1
    assert found["test/accuracy_decimated_2"] == 1
    assert 0.5 <= found["test/accuracy_resampled_2"] <= 1  # the filter leaves little of the sines of 2 kHz
    assert found["test/loss_resampled_2"] != found["test/loss_decimated_2"]
    assert found["test/loss"] < 0.5
    card = AudioCard.read(classifier / "model")
    assert card == AudioCard.read(classifier / "checkpoints" / "best.ckpt")
    assert card is not None
    assert (card.sample_rate, card.length, card.normalize, card.class_names) == (8000, 400, "rms", ["high", "low"])


def test_data_at_another_rate_are_read_with_that_rate(command: Any, classifier: Path) -> None:
    """The data's decimation, in a test, gives what the task's own ``decimations`` gave."""
    line = f"audio test --ckpt_path {classifier}/checkpoints/best.ckpt --output tested"
    outcome = command(f"{line} --data.decimation 2 --model.decimations null")
    assert outcome.status == 0, outcome.err
    halved = metrics("tested")
    assert "test/accuracy_decimated_2" not in halved
    assert command(f"audio test --ckpt_path {classifier}/checkpoints/best.ckpt --output whole").status == 0
    assert halved["test/loss"] == pytest.approx(metrics("whole")["test/loss_decimated_2"], rel=1e-5)
    assert halved["test/loss"] != pytest.approx(metrics("whole")["test/loss"], rel=1e-5)


def test_predictions_and_the_verb_classify_agree(command: Any, classifier: Path, sounds: Path) -> None:
    folder = sounds / "classes" / "low"
    line = f"audio predict --ckpt_path {classifier}/checkpoints/best.ckpt --data.folder null"
    outcome = command(f"{line} --data.predict {folder} --predictions p.tsv")
    assert outcome.status == 0, outcome.err
    assert command(f"audio classify {folder} --model {classifier}/model --output c.tsv").status == 0
    with open("p.tsv") as first, open("c.tsv") as second:
        rows, others = list(csv.reader(first, delimiter="\t")), list(csv.reader(second, delimiter="\t"))
    assert rows[0] == others[0] == ["name", "prediction", "probability_high", "probability_low"]
    assert len(rows) == 21
    assert {row[1] for row in rows[1:]} == {"low"}
    for row, other in zip(rows[1:], others[1:], strict=True):
        assert row[:2] == other[:2]
        assert [float(x) for x in row[2:]] == pytest.approx([float(x) for x in other[2:]], abs=1e-5)


def test_labels_that_the_model_does_not_know(command: Any, classifier: Path, sounds: Path) -> None:
    rows = "".join(f"{sounds}/{name}.wav,{label},test\n" for name, label in (("a", "high"), ("b", "higher")))
    Path("m.csv").write_text("path,label,split\n" + rows)
    line = f"audio test --ckpt_path {classifier}/checkpoints/best.ckpt --output tested --data.folder null"
    outcome = command(f"{line} --data.test_manifest m.csv --data.class_names '[high, low]'")
    assert outcome.status == 2
    assert "m.csv:3: the model knows no label 'higher' (nearest: high" in outcome.err
    outcome = command(f"{line} --data.test_manifest m.csv --data.class_names '[high, higher]'")
    assert outcome.status == 2
    assert "the model tells high, low apart, the data has the classes high, higher" in outcome.err


def test_training_goes_on_from_pretrained_weights(
    command: Any, classifier: Path, sounds: Path, fit_classes: str
) -> None:
    line = fit_classes.replace("'{d_model: 8, n_layers: 1, d_state: 16}'", "'{}'").replace(
        "max_epochs 6", "max_epochs 1"
    )
    outcome = command(f"{line} --data.folder {sounds}/classes --model.pretrained {classifier}/model")
    assert outcome.status == 0, outcome.err
    assert metrics("run")["val/accuracy"] == 1
    # Of which the S4 parameters have a learning rate of their own and no decay.
    assert re.search(r"declared, lr 0\.001: 5 tensors, .* lr 0\.001, weight decay 0\n", outcome.out)


def test_waveform_modeling_counts_bits(command: Any, sounds: Path) -> None:
    line = (
        f"audio fit --config audio/quickstart --output run --data.dataset null --data.folder {sounds}/classes {QUIET}"
    )
    line += " --data.length 128 --data.eval_length 256 --data.batch_size 4 --trainer.max_steps 3"
    outcome = command(f"{line} --model.options '{{d_model: 8, n_layers: 1, d_state: 8, mixer: s4d}}'")
    assert outcome.status == 0, outcome.err
    found = metrics("run")
    assert found["val/bits"] == pytest.approx(found["val/loss"] / math.log(2), rel=1e-6)
    outcome = command(
        f"audio predict --ckpt_path run/checkpoints/best.ckpt --predictions p.tsv --data.folder null "
        f"--data.predict {sounds}/a.wav --data.eval_length null"
    )
    assert outcome.status == 0, outcome.err
    assert command(f"audio likelihood {sounds}/a.wav --model run/model --output l.tsv").status == 0
    with open("p.tsv") as first, open("l.tsv") as second:
        (row,), (other,) = list(csv.DictReader(first, delimiter="\t")), list(csv.DictReader(second, delimiter="\t"))
    assert row["samples"] == other["samples"] == "700"
    assert float(row["log_likelihood"]) == pytest.approx(float(other["log_likelihood"]), abs=0.02)
    assert command("audio generate --model run/model --frames 30 --output g.wav").status == 0
    assert soundfile.info("g.wav").frames == 30
    outcome = command("audio test --ckpt_path run/checkpoints/best.ckpt --data.quantizer.range minmax --output t")
    assert outcome.status == 2
    assert "was trained with data.quantizer" in outcome.err
    # Bits per sample at another rate would be of another task.
    soundfile.write("fast.wav", np.zeros(900), 16000)
    Path("fast.csv").write_text("path,split\nfast.wav,test\n")
    again = "audio test --ckpt_path run/checkpoints/best.ckpt --output t --data.folder null --data.manifest fast.csv"
    outcome = command(again)
    assert outcome.status == 2
    assert "was trained at 8000 Hz, the data has 16000 Hz; set data.sample_rate 8000 and data.resample" in outcome.err
    outcome = command(f"{again} --data.sample_rate 8000 --data.resample true")
    assert outcome.status == 0, outcome.err


def test_a_model_that_sees_what_it_predicts_is_refused(command: Any, sounds: Path) -> None:
    line = f"audio fit --config audio/quickstart --output run --data.dataset null --data.folder {sounds}/classes"
    options = "'{d_model: 8, n_layers: 1, d_state: 8, mixer: s4d, bidirectional: true}'"
    outcome = command(f"{line} {QUIET} --data.length 128 --model.options {options}")
    assert outcome.status == 2
    assert "sashimi_small looks in both directions and sees what it predicts" in outcome.err


def test_mel_features_cannot_be_decimated() -> None:
    task = AudioClassification(decimations=[2])
    task.card = AudioCard(sample_rate=8000, features={"mels": 40})
    with pytest.raises(UserError, match="the model reads mel features; leave them away"):
        task.start_evaluation("test")


def test_the_likelihood_of_even_odds() -> None:
    """Logits that are all alike cost 8 bits for each sample, padding none."""
    task = WaveformModeling()
    task.model = nn.Embedding(256, 256)
    nn.init.zeros_(task.model.weight)
    batch = {"input_ids": torch.zeros(2, 6, dtype=torch.int64), "labels": torch.tensor([[1] * 6, [1] * 4 + [-100] * 2])}
    evaluation = task.start_evaluation("val")
    task.update_evaluation(evaluation, batch)
    assert float(evaluation.compute()["bits"]) == pytest.approx(8)
    found = task.predict_step(batch, 0)
    assert found[:, 1].tolist() == [6, 4]
    assert found[:, 0].tolist() == pytest.approx([-6 * math.log(256), -4 * math.log(256)])
    assert task.prediction_columns()[-1] == "bits_per_sample"
    rows = list(task.prediction_rows(found, {"name": ["a", "b"], "start": torch.tensor([0, 6])}))
    assert [row[-1] for row in rows] == ["8.000000", "8.000000"]


class Gain(nn.Module):
    """An effect that only turns down by its first control."""

    def forward(self, x: torch.Tensor, controls: torch.Tensor) -> torch.Tensor:
        return x * controls[:, 0, None, None]


def test_the_loss_of_an_effect() -> None:
    """Mean absolute error and spectral distance of what is behind the warm-up, and not padding."""
    task = EffectRegression(stft_weight=0.5, warmup=100)
    task.model = Gain()
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(2, 3000, 1, generator=generator) / 4
    mask = torch.ones(2, 3000, dtype=torch.bool)
    mask[1, 2500:] = False
    clean[1, 2500:] = 0
    batch = {"input_ids": clean, "labels": clean, "mask": mask, "controls": torch.full((2, 1), 0.5)}
    error = (clean[:, 100:] / 2).abs().sum() / mask[:, 100:].sum()
    distance = MultiResolutionSTFT()(clean[:, 100:] / 2, clean[:, 100:])
    assert float(task.loss(batch)) == pytest.approx(float(error + 0.5 * distance), rel=1e-5)
    task.esr_weight = 2.0
    assert float(task.loss(batch)) == pytest.approx(float(error + 0.5 * distance + 2 * 0.25), rel=1e-5)
    with_ratio = task.start_evaluation("val")
    task.update_evaluation(with_ratio, batch)
    ratio = with_ratio.compute()
    assert float(ratio["loss"]) == pytest.approx(float(ratio["mae"] + 0.5 * ratio["stft"] + 2 * ratio["esr"]), rel=1e-6)
    task.esr_weight = 0.0
    evaluation = task.start_evaluation("val")
    task.update_evaluation(evaluation, batch)
    found = evaluation.compute()
    assert float(found["esr"]) == pytest.approx(0.25, rel=1e-5)
    assert float(found["mae"]) == pytest.approx(float(mean_absolute_error(clean / 2, clean, mask)), rel=1e-5)
    assert float(found["loss"]) == pytest.approx(float(found["mae"] + 0.5 * found["stft"]), rel=1e-6)
    rows = list(task.prediction_rows(task.predict_step(batch, 0), {"name": ["a", "b"]}))
    assert [float(row[2]) for row in rows] == pytest.approx([0.25, 0.25], rel=1e-4)
    with pytest.raises(UserError, match="warmup 100 leaves nothing of a window of 50 frames"):
        task.loss({key: value[:, :50] if key != "controls" else value for key, value in batch.items()})


def test_an_effect_is_learned_and_streamed(command: Any, sounds: Path) -> None:
    line = f"audio fit --config audio/compressor --output run --data.folder {sounds}/classes --data.sample_rate 8000 "
    line += "--data.manifest null --trainer.check_val_every_n_epoch 1"
    line += f" --data.length 400 --data.eval_length 400 --model.warmup 0 --data.batch_size 8 {QUIET}"
    outcome = command(f"{line} --trainer.max_epochs 2 --model.options '{{d_model: 4, n_layers: 1}}'")
    assert outcome.status == 0, outcome.err
    assert set(metrics("run")) >= {f"val/{name}" for name in ("loss", "mae", "esr", "esr_pre_emphasis", "dc", "stft")}
    controls = "--control threshold=-30 --control ratio=4 --control attack=0.005 --control release=0.1"
    outcome = command(f"audio process {sounds}/a.wav --model run/model {controls} --output o.wav")
    assert outcome.status == 0, outcome.err
    assert soundfile.info("o.wav").frames == 700
    # The same knob position would mean another setting.
    outcome = command("audio test --ckpt_path run/checkpoints/best.ckpt --output t --data.ranges.ratio '[1.5, 20]'")
    assert outcome.status == 2
    assert "control ratio: the model was trained with 1.5 … 10 (linear), the data has 1.5 … 20 (linear)" in outcome.err


class Recorder(nn.Module):
    """Says that there is no noise, and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = NoiseSchedule(200, 1e-4, 0.02)
        self.shown: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, x: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        self.shown.append((x, steps))
        return torch.zeros_like(x)


def test_diffusion_shows_noise_of_the_schedule() -> None:
    task = WaveformDiffusion()
    task.model = model = Recorder()
    clean = torch.full((64, 500, 1), 0.5)
    loss = float(task.loss({"input_ids": clean}))
    assert loss == pytest.approx(1, abs=0.03)  # the variance of the noise
    ((x, steps),) = model.shown
    kept = model.schedule.alpha_bar[steps].float()
    assert x.mean((1, 2)).tolist() == pytest.approx((0.5 * kept.sqrt()).tolist(), abs=0.2)
    assert x.std((1, 2)).tolist() == pytest.approx((1 - kept).sqrt().tolist(), rel=0.15)
    assert len(steps.unique()) > 30

    def evaluated() -> float:
        evaluation = task.start_evaluation("val")
        for begin in (0, 32):
            task.update_evaluation(evaluation, {"input_ids": clean[begin : begin + 32]})
        return float(evaluation.compute()["loss"])

    first, shown = evaluated(), model.shown[1:]
    assert evaluated() == first
    assert torch.equal(model.shown[3][0], shown[0][0])
    assert not torch.equal(shown[0][0], shown[1][0])


def test_diffusion_trains_and_generates(command: Any, sounds: Path) -> None:
    line = f"audio fit --config audio/diffwave --output run --data.dataset null --data.folder {sounds}/classes {QUIET}"
    line += " --data.length 256 --data.batch_size 4 --trainer.max_steps 2 --trainer.max_epochs 1"
    small = "{d_model: 4, n_layers: 1, d_state: 4, diffusion_steps: 5, step_hidden: 8, step_width: 8}"
    outcome = command(f"{line} --model.options '{small}'")
    assert outcome.status == 0, outcome.err
    line = "audio generate --model run/model --frames 100 --number 2"
    outcome = command(f"{line} --output g")
    assert outcome.status == 0, outcome.err
    assert command(f"{line} --output h").status == 0
    waves = [soundfile.read(f"g/000{number}.wav")[0] for number in (1, 2)]
    assert waves[0].shape == (100,)
    assert not np.array_equal(waves[0], waves[1])
    assert Path("g/0002.wav").read_bytes() == Path("h/0002.wav").read_bytes()
    outcome = command("audio generate --model run/model --top-k 3 --output x.wav")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "--top-k: a diffusion model does not draw sample by sample" in outcome.err


def test_options_follow_from_the_data() -> None:
    data = AudioTokenDataModule(dataset="spoken_digits", length=100)
    task: Any = WaveformModeling()
    task.trainer = SimpleNamespace(datamodule=data, state=SimpleNamespace(fn="fit"), ckpt_path=None)
    task.card = task.describe(data)
    assert task.card == AudioCard(sample_rate=8000, length=100, quantizer={"bits": 8, "law": "mu", "range": "fixed"})
    options = task.fitting_options()
    assert (options["vocab_size"], options["sample_rate"], options["law"]) == (256, 8000, "mu")
    task.options = {"d_model": 4, "n_layers": 1, "mixer": "s4d", "d_state": 4}
    assert task.create(options).config.sample_rate == 8000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AudioClassification(label_smoothing=1.0), "label_smoothing is 1.0"),
        (lambda: AudioClassification(decimations=[1]), r"decimations is \[1\]"),
        (lambda: AudioClassification(resamplings=[0]), r"resamplings is \[0\]"),
        (lambda: EffectRegression(stft_weight=-1), "stft_weight -1"),
    ],
)
def test_arguments_out_of_range(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_no_weights(command: Any) -> None:
    outcome = command("audio test --config audio/quickstart_digits --output t")
    assert outcome.status == 2
    assert "no weights: give model.pretrained or --ckpt_path" in outcome.err
    with pytest.raises(UserError, match="unknown"):
        longscan.create_model("sashimi_smal")
