"""``longscan audio generate``, ``classify``, ``process`` and ``likelihood``: what they write, and what they refuse."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import longscan
from longscan.audio.card import AudioCard, Control
from longscan.audio.data.classification import normalized
from longscan.audio.quantization import Quantizer


def table(path: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def log_likelihood(model: Any, codes: np.ndarray, first: int = 0) -> float:
    """Of ``codes[first:]``, each given those before, from one pass over the whole."""
    inputs = torch.from_numpy(np.concatenate([[128], codes[:-1]]))
    with torch.no_grad():
        scores = model(inputs[None])[0].log_softmax(-1)
    return float(scores.gather(-1, torch.from_numpy(codes)[:, None])[first:].double().sum())


# likelihood


def test_likelihood(command: Any, models: Path, sounds: Path) -> None:
    outcome = command(
        f"audio likelihood {sounds}/a.wav {sounds}/b.wav --model {models}/codes --block 100 --output l.tsv"
    )
    assert outcome.status == 0, outcome.err
    model, rows = longscan.from_pretrained(models / "codes"), table("l.tsv")
    totals, counts = [], [700, 900]
    for row, name, count in zip(rows, ("a.wav", "b.wav"), counts, strict=True):
        codes = Quantizer().encode(soundfile.read(sounds / name, dtype="float32")[0])
        # 700 and 900 are no multiples of 16, nor is the block of 100: pieces with the state carried equal the whole.
        padded = np.concatenate([codes, np.full(-count % 16, 128)])
        totals.append(log_likelihood(model, padded) - log_likelihood(model, padded, count))
        assert (row["name"], row["samples"]) == (str(sounds / name), str(count))
        assert float(row["log_likelihood"]) == pytest.approx(totals[-1], abs=0.02)
        assert float(row["bits_per_sample"]) == pytest.approx(-totals[-1] / count / math.log(2), abs=1e-4)
    mean = float(outcome.out.split(": ")[1].split()[0])
    assert mean == pytest.approx(-sum(totals) / sum(counts) / math.log(2), abs=2e-4)


# generate


def test_generate_is_seeded_and_counts_its_likelihood(command: Any, models: Path) -> None:
    line = f"audio generate --model {models}/codes --frames 80 --number 3 --batch-size 2"
    outcome = command(f"{line} --output g --seed 4")
    assert outcome.status == 0, outcome.err
    assert "real-time factor" in outcome.out
    assert sorted(os.listdir("g")) == ["0001.wav", "0002.wav", "0003.wav", "samples.tsv"]
    waves = [soundfile.read(f"g/000{number}.wav", dtype="float32") for number in (1, 2, 3)]
    assert [(len(wave), rate) for wave, rate in waves] == [(80, 8000)] * 3
    assert len({wave.tobytes() for wave, _ in waves}) == 3
    model, decoded = longscan.from_pretrained(models / "codes"), Quantizer().table
    for (wave, _), row in zip(waves, table("g/samples.tsv"), strict=True):
        codes = np.abs(wave[:, None] - decoded[None]).argmin(1)
        assert float(row["log_likelihood"]) == pytest.approx(log_likelihood(model, codes), abs=0.01)
    assert command(f"{line} --output h --seed 4 --batch-size 3").status == 0
    assert Path("h/0003.wav").read_bytes() == Path("g/0003.wav").read_bytes()
    assert command(f"{line} --output i --seed 5").status == 0
    assert Path("i/0003.wav").read_bytes() != Path("g/0003.wav").read_bytes()


def test_generate_goes_on_from_a_prompt(command: Any, models: Path, sounds: Path) -> None:
    line = f"audio generate --model {models}/codes --frames 6 --prompt {sounds}/a.wav --greedy"
    outcome = command(f"{line} --output whole.wav")
    assert outcome.status == 0, outcome.err
    # Longer than the training windows of 256: allowed, and said.
    assert outcome.err.count("700 samples are more than the 256 of the model's training windows") == 1
    whole, quantizer = soundfile.read("whole.wav", dtype="float32")[0], Quantizer()
    codes = quantizer.encode(soundfile.read(sounds / "a.wav", dtype="float32")[0])
    assert np.abs(whole[:700] - quantizer.decode(codes)).max() < 1 / 32768
    model = longscan.from_pretrained(models / "codes")
    for frame in range(6):
        given = np.concatenate([[128], codes])
        padded = torch.from_numpy(np.concatenate([given, np.full(-len(given) % 16, 128)]))
        with torch.no_grad():
            best = int(model(padded[None])[0, len(given) - 1].argmax())
        assert abs(whole[700 + frame] - quantizer.table[best]) < 1 / 32768
        codes = np.append(codes, best)
    assert command(f"{line} --omit-prompt --output new.wav").status == 0
    assert np.array_equal(soundfile.read("new.wav", dtype="float32")[0], whole[700:])


def test_generate_with_top_k_of_one_is_greedy(command: Any, models: Path) -> None:
    line = f"audio generate --model {models}/codes --seconds 0.01"
    assert command(f"{line} --greedy --output a.wav").status == 0
    assert command(f"{line} --top-k 1 --temperature 2 --seed 9 --output b.wav").status == 0
    assert command(f"{line} --top-p 1e-9 --output c.wav").status == 0
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes() == Path("c.wav").read_bytes()


# classify


def test_classify_agrees_with_the_model(command: Any, models: Path, sounds: Path) -> None:
    outcome = command(f"audio classify {sounds}/a.wav {sounds}/b.wav --model {models}/classes --output c.tsv")
    assert outcome.status == 0, outcome.err
    model: Any = longscan.from_pretrained(models / "classes")
    rows = table("c.tsv")
    assert list(rows[0]) == ["name", "prediction", "probability_high", "probability_low"]
    for row, name, start in zip(rows, ("a.wav", "b.wav"), (94, 194), strict=True):
        # 512 frames from the middle, at peak 1, as in training.
        clip = soundfile.read(sounds / name, dtype="float32", always_2d=True)[0][start : start + 512]
        with torch.no_grad():
            expected = model(torch.from_numpy(normalized(clip, "peak"))[None]).softmax(-1)[0].tolist()
        found = [float(row["probability_high"]), float(row["probability_low"])]
        assert found == pytest.approx(expected, abs=2e-6)
        assert row["prediction"] == ("high" if found[0] > found[1] else "low")


def test_classify_at_another_rate(command: Any, models: Path, sounds: Path) -> None:
    """Every other sample with rate 2; a file that is at half the rate already gives the same."""
    model: Any = longscan.from_pretrained(models / "classes")
    clip = soundfile.read(sounds / "a.wav", dtype="float32", always_2d=True)[0][94 : 94 + 512]
    clip = normalized(clip, "peak")[::2]
    with torch.no_grad():
        expected = model(torch.from_numpy(clip)[None].contiguous(), rate=2.0).softmax(-1)[0].tolist()
        other = model(torch.from_numpy(clip)[None].contiguous()).softmax(-1)[0].tolist()
    assert expected != pytest.approx(other, abs=1e-5)
    line = f"audio classify --model {models}/classes --sample-rate-shift 2 --output c.tsv"
    outcome = command(f"{line} {sounds}/a.wav")
    assert outcome.status == 0, outcome.err
    assert "at 4000 Hz (rate 2)" in outcome.out
    soundfile.write("half.wav", clip, 4000, subtype="FLOAT")
    (row,) = table("c.tsv")
    assert [float(row["probability_high"]), float(row["probability_low"])] == pytest.approx(expected, abs=2e-6)
    assert command(f"{line} half.wav").status == 0
    (row,) = table("c.tsv")
    assert [float(row["probability_high"]), float(row["probability_low"])] == pytest.approx(expected, abs=2e-6)


def test_classify_a_manifest_counts_what_is_right(command: Any, models: Path, sounds: Path) -> None:
    Path("m.csv").write_text(f"path,label\n{sounds}/a.wav,high\n{sounds}/a.wav,low\n")
    outcome = command(f"audio classify m.csv --model {models}/classes --output c.tsv")
    assert outcome.status == 0, outcome.err
    assert "accuracy: 0.5000 (1 of 2)" in outcome.out


# process


CONTROLS = "--control drive=5 --control time=0.1"


def test_process_equals_the_whole_whatever_the_block(command: Any, models: Path, sounds: Path) -> None:
    model: Any = longscan.from_pretrained(models / "effect")
    samples = soundfile.read(sounds / "a.wav", dtype="float32", always_2d=True)[0]
    with torch.no_grad():
        # drive 5 of -10 … 10 is 0.75; time 0.1 is the middle of 0.01 … 1 on a logarithmic scale.
        whole = model(torch.from_numpy(samples)[None], torch.tensor([[0.75, 0.5]]))[0].numpy()
    for block in (64, 1, 333, 5000):
        line = f"audio process {sounds}/a.wav --model {models}/effect {CONTROLS} --block {block} --subtype FLOAT"
        outcome = command(f"{line} --output {block}.wav")
        assert outcome.status == 0, outcome.err
        assert f"in {math.ceil(700 / block)} blocks of {block}" in outcome.out
        assert "real-time factor" in outcome.out
        assert "latency" in outcome.out
        found, rate = soundfile.read(f"{block}.wav", dtype="float32", always_2d=True)
        assert rate == 8000
        assert np.abs(found - whole).max() < 1e-5


def test_process_streams(command: Any, models: Path, sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        def __init__(self, data: bytes = b"") -> None:
            self.buffer = io.BytesIO(data)

        def write(self, text: str) -> None:
            raise AssertionError(f"text on standard output: {text}")

    samples = soundfile.read(sounds / "a.wav", dtype="float32")[0]
    assert (
        command(
            f"audio process {sounds}/a.wav --model {models}/effect {CONTROLS} --subtype FLOAT --output a.wav"
        ).status
        == 0
    )
    monkeypatch.setattr(sys, "stdin", Stream(samples.astype("<f4").tobytes()))
    outcome = command(f"audio process - --model {models}/effect {CONTROLS} --subtype FLOAT --output b.wav")
    assert outcome.status == 0, outcome.err
    assert np.array_equal(soundfile.read("a.wav")[0], soundfile.read("b.wav")[0])


def test_controls() -> None:
    assert Control(name="time", low=0.01, high=1, scale="logarithmic").scaled(0.1) == pytest.approx(0.5)
    card = AudioCard(sample_rate=8000, controls=(Control(name="b", low=2, high=4), Control(name="a")))
    assert card.control_values({"a": 0.25, "b": 3.0}) == [0.5, 0.25]
    assert AudioCard.from_dict(json.loads(json.dumps(card.to_dict()))).control_values({"a": 0, "b": 4}) == [1, 0]


# Mistakes: one line that names the culprit and the remedy, status 2, no output


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("process {s}/a.wav --model {m}/effect --control drive=1 --control tiem=1", "no control 'tiem' (nearest: time"),
        ("process {s}/a.wav --model {m}/effect --control drive=1", "give --control time=0.01…1"),
        ("process {s}/a.wav --model {m}/effect --control drive=x", "--control drive=x: is not NAME=NUMBER"),
        (
            "process {s}/a.wav --model {m}/effect --control drive=11 --control time=1",
            "drive: 11 is outside of -10 … 10",
        ),
        ("process {s}/a.wav --model {m}/effect --control drive=1 --control drive=2", "drive: is given twice"),
        ("process {s}/a.wav --model {m}/classes", "S4Classifier is not an effect model"),
        ("process {s}/a.wav --model {m}/effect --block 0", "--block 0: must be at least 1"),
        ("process none.wav --model {m}/effect", "none.wav: no such file"),
        ("process {s}/more/fast.wav --model {m}/effect " + CONTROLS, "has a sample rate of 16000 Hz but 8000 Hz"),
        ("process {s}/more/wide.wav --model {m}/effect " + CONTROLS, "--mixdown averages them"),
        ("generate --model {m}/codes --prompt none.wav", "none.wav: no such file"),
        ("generate --model {m}/codes --prompt {s}/more/fast.wav", "--resample resamples it"),
        ("generate --model {m}/codes --prompt {s}/more/wide.wav", "--mixdown averages them"),
        ("generate --model {m}/codes --temperature 0", "--temperature 0: must be above 0; for the most probable"),
        ("generate --model {m}/codes --top-p 2", "--top-p 2: must lie above 0 and be at most 1"),
        ("generate --model {m}/codes --top-k 0", "--top-k 0: must be at least 1"),
        ("generate --model {m}/codes --seconds -1", "--seconds -1: must be above 0"),
        ("generate --model {m}/codes --omit-prompt", "--omit-prompt: there is no prompt"),
        ("generate --model {m}/codes --number 2", "is one file, but --number is 2; name a folder"),
        (
            "generate --model {m}/codes --output x.aiff",
            "--output x.aiff: cannot write .aiff; name a .wav or .flac file",
        ),
        ("generate --model {m}/classes", "S4Classifier is not a generative model"),
        ("generate --model {m}/nothing/x", "no such file or folder"),
        ("generate --model {m}/codes --sample-rate 16000", "was trained at 8000 Hz; leave --sample-rate away"),
        ("generate --model {m}/codes --device cuda:99", "--device cuda:99: cannot be used"),
        ("likelihood {s}/a.wav none.wav --model {m}/codes", "none.wav: no such file"),
        ("likelihood {s}/a.wav --model {m}/effect", "is not a generative model"),
        ("classify {s}/a.wav --model {m}/codes", "names no classes; choose a classifier"),
        ("classify {s}/a.wav none.wav --model {m}/classes", "none.wav: no such file"),
        ("classify {s}/more/fast.wav --model {m}/classes", "--resample resamples it"),
        ("classify {s}/a.wav --model {m}/classes --sample-rate-shift 0", "--sample-rate-shift 0: must be at least 1"),
        ("classify labels.csv --model {m}/classes", "labels.csv:3: the model knows no label 'hihg' (nearest: high)"),
        ("classify missing.csv --model {m}/classes", "missing.csv:3: no such file"),
    ],
)
def test_mistakes(command: Any, models: Path, sounds: Path, line: str, message: str) -> None:
    Path("labels.csv").write_text(f"path,label\n{sounds}/a.wav,high\n{sounds}/b.wav,hihg\n")
    Path("missing.csv").write_text(f"path,label\n{sounds}/a.wav,high\nmissing.wav,low\n")
    output = "out.wav" if line.split()[0] in ("generate", "process") else "out.tsv"
    given = "" if "--output" in line else f" --output {output}"
    outcome = command(f"audio {line.format(s=sounds, m=models)}{given}")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert message in outcome.err
    assert not Path(output).exists()


def full_disk(*arguments: Any, **options: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "line",
    [
        "generate --model {m}/codes --frames 20 --output out.wav",
        "process {s}/a.wav --model {m}/effect " + CONTROLS + " --output out.wav",
        "classify {s}/a.wav --model {m}/classes --output out.tsv",
        "likelihood {s}/a.wav --model {m}/codes --output out.tsv",
    ],
)
def test_a_full_disk_leaves_what_was_there(
    command: Any, models: Path, sounds: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    path = Path(line.split()[-1])
    path.write_bytes(b"earlier")
    if path.suffix == ".wav":
        monkeypatch.setattr(soundfile.SoundFile, "write", full_disk)
    else:
        monkeypatch.setattr(Path, "write_text", full_disk)
    outcome = command(f"audio {line.format(s=sounds, m=models)}")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert "No space left on device" in outcome.err
    assert path.read_bytes() == b"earlier"
    assert os.listdir() == [path.name]


@pytest.mark.parametrize(
    "line",
    [
        "generate --model none --output file/o.wav",
        "process x.wav --model none --output file/o.wav",
        "classify x.wav --model none --output file/o.tsv",
        "likelihood x.wav --model none --output file/o.tsv",
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_any_work(command: Any, line: str) -> None:
    Path("file").write_text("not a folder")
    outcome = command(f"audio {line}")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "is no folder; write elsewhere" in outcome.err


def test_a_prompt_is_read_in_pieces(command: Any, models: Path, sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"audio generate --model {models}/codes --frames 40 --prompt {sounds}/b.wav --greedy"
    assert command(f"{line} --output whole.wav").status == 0
    monkeypatch.setattr("longscan.audio.generation._PROMPT_PIECE", 100)
    assert command(f"{line} --output pieces.wav").status == 0
    whole, pieces = (soundfile.read(name)[0] for name in ("whole.wav", "pieces.wav"))
    assert len(pieces) == 940
    assert np.array_equal(whole, pieces)


def test_diffusion_does_not_depend_on_the_batch(command: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    options = {"d_model": 4, "n_layers": 1, "d_state": 4, "diffusion_steps": 3}
    model: Any = longscan.create_model("diffwave_sashimi", **options)
    torch.nn.init.normal_(model.output.weight)
    model.save_pretrained(tmp_path / "noise")
    line = "audio generate --model noise --sample-rate 8000 --frames 40 --number 3"
    assert command(f"{line} --batch-size 3 --output a").status == 0
    assert command(f"{line} --batch-size 1 --output b").status == 0
    first, second = ([soundfile.read(f"{folder}/000{n}.wav")[0] for n in (1, 2, 3)] for folder in "ab")
    assert np.abs(np.array(first) - np.array(second)).max() < 2 / 32768
    assert np.abs(first[1] - first[2]).max() > 0.1
    # What was the second result of one seed is no result of the next.
    assert command(f"{line} --seed 1 --output c").status == 0
    assert np.abs(soundfile.read("c/0001.wav")[0] - first[1]).max() > 0.1
    for option in ("--temperature 0.9", "--greedy"):
        outcome = command(f"{line} {option} --output d")
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert f"{option}: a diffusion model does not draw sample by sample" in outcome.err


def test_models_that_do_not_look_back_alone(command: Any, sounds: Path, tmp_path: Path) -> None:
    options = {"d_model": 8, "n_layers": 1, "d_state": 8, "mixer": "s4d", "sample_rate": 8000}
    for name, changes in (("both", {"bidirectional": True}), ("plain", {"vocab_size": None})):
        longscan.create_model("sashimi_small", **options, **changes).save_pretrained(tmp_path / name)  # type: ignore[operator]
    for name, message in (("both", "looks in both directions"), ("plain", "nothing says how samples become its codes")):
        for line in (f"likelihood {sounds}/a.wav --output l.tsv", "generate --output g.wav"):
            outcome = command(f"audio {line} --model {name}")
            assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
            assert message in outcome.err


def test_controls_without_names_are_numbered(command: Any, sounds: Path, tmp_path: Path) -> None:
    model: Any = longscan.create_model("s4_compressor", n_controls=2, d_model=8, n_layers=1, sample_rate=8000)
    model.save_pretrained(tmp_path / "bare")
    line = f"audio process {sounds}/a.wav --model bare --subtype FLOAT --output o.wav"
    outcome = command(line)
    assert outcome.status == 2
    assert "give --control control_1=0…1 --control control_2=0…1" in outcome.err
    assert command(f"{line} --control control_2=0.5 --control control_1=1").status == 0
    samples = soundfile.read(sounds / "a.wav", dtype="float32", always_2d=True)[0]
    with torch.no_grad():
        whole = model.eval()(torch.from_numpy(samples)[None], torch.tensor([[1, 0.5]]))[0].numpy()
    assert np.abs(soundfile.read("o.wav", dtype="float32", always_2d=True)[0] - whole).max() < 1e-5


def test_a_model_without_a_card_tells_what_it_can(command: Any, models: Path, sounds: Path, tmp_path: Path) -> None:
    model: Any = longscan.from_pretrained(models / "codes")
    model.save_pretrained(tmp_path / "bare")
    assert AudioCard.read(tmp_path / "bare") is None
    for name in ("bare", f"{models}/codes"):
        assert command(f"audio likelihood {sounds}/a.wav --model {name} --output {Path(name).name}.tsv").status == 0
    assert Path("bare.tsv").read_text() == Path("codes.tsv").read_text()
