"""Pairs of an effect: from files, and from the reference compressor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longscan.audio.data import CompressorDataModule, EffectDataModule, read_audio
from longscan.audio.data.compression import CONTROLS, CompressorRanges, write_compressed_pairs
from longscan.audio.data.files import AudioFormat
from longscan.audio.effects.compressor import compress
from longscan.core.errors import UserError
from longscan.core.training.data import SampleKey

Record = Callable[..., np.ndarray]


def ready(module: Any, stage: str | None = None) -> Any:
    module.setup(stage)
    return module


def digits(kind: Any, stage: str | None = None, **options: Any) -> Any:
    return ready(kind(dataset="spoken_digits", **options), stage)


@pytest.fixture
def pairs(tmp_path: Path, record: Record) -> str:
    rows = ["input,target,split,peak_reduction,limit"]
    for index, split in enumerate(("train", "train", "val", "test")):
        for kind in ("in", "out"):
            record(f"{kind}{index}.wav", 1000 + 100 * index)
        rows.append(f"in{index}.wav,out{index}.wav,{split},{25 * index},{index % 2}")
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    return str(tmp_path / "pairs.csv")


def test_pairs_of_files(pairs: str, tmp_path: Path) -> None:
    data = ready(
        EffectDataModule(
            pairs, ["peak_reduction", "limit"], {"peak_reduction": (0, 100)}, length=600, batch_size=2, seed=3
        )
    )
    assert data.num_controls == 2
    batch = next(iter(data.test_dataloader()[0]))
    assert batch["controls"].tolist() == [[0.75, 1.0]]
    np.testing.assert_array_equal(batch["input_ids"][0], read_audio(tmp_path / "in3.wav")[0])
    np.testing.assert_array_equal(batch["labels"][0], read_audio(tmp_path / "out3.wav")[0])
    assert batch["mask"].all()
    # Input and target of a random window are of the same place.
    dry, wet = read_audio(tmp_path / "in1.wav")[0], read_audio(tmp_path / "out1.wav")[0]
    places = set()
    for epoch in range(10):
        sample = data.train_set[SampleKey(epoch, len(data.train_set) - 1)]
        start = int(np.flatnonzero((dry == sample["input_ids"][0]).all(1))[0])
        np.testing.assert_array_equal(sample["input_ids"], dry[start : start + 600])
        np.testing.assert_array_equal(sample["labels"], wet[start : start + 600])
        places.add(start)
    assert len(places) > 5
    first = next(iter(data.train_dataloader()))
    assert first["input_ids"].shape == (2, 600, 1)
    assert first["controls"].dtype == torch.float32


def test_pairs_that_are_wrong(pairs: str, tmp_path: Path, record: Record) -> None:
    with pytest.raises(UserError, match=r"no column 'drive'"):
        ready(EffectDataModule(pairs, ["drive"]))
    with pytest.raises(UserError, match=r"control_ranges: 'gain' is no control"):
        EffectDataModule(pairs, ["limit"], {"gain": (0, 1)})
    record("out1.wav", 1099)
    with pytest.raises(UserError, match=r"pairs\.csv:3: .*out1\.wav and .*in1\.wav differ in length"):
        ready(EffectDataModule(pairs, ["limit"]))
    (tmp_path / "out1.wav").unlink()
    with pytest.raises(UserError, match=r"pairs\.csv:3: no such file: .*out1\.wav"):
        ready(EffectDataModule(pairs, ["limit"]))
    Path(pairs).write_text("input,target,split,limit\nin0.wav,out0.wav,train,high\n")
    with pytest.raises(UserError, match=r"pairs\.csv:2: limit 'high' is not a number"):
        ready(EffectDataModule(pairs, ["limit"], val_fraction=0.0), "fit")


def test_controls_outside_of_their_range(pairs: str) -> None:
    """The card promises the range to ``process``, so that data beyond it are refused."""
    with pytest.raises(UserError, match=r"pairs\.csv:3: peak_reduction 25 is outside of 0 … 1; give control_ranges"):
        EffectDataModule(pairs, ["peak_reduction"]).setup("fit")
    with pytest.raises(UserError, match=r"pairs\.csv:5: peak_reduction 75 is outside of 0 … 50"):
        EffectDataModule(pairs, ["peak_reduction"], {"peak_reduction": (0, 50)}).setup("test")


def test_pairs_to_predict(pairs: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"controls": ["limit"], "predict": pairs}
    data = ready(EffectDataModule(pairs, **options), "predict")
    assert len(data.predict_set) == 4
    np.testing.assert_array_equal(data.predict_set[2]["labels"], read_audio(tmp_path / "out2.wav")[0])
    with pytest.raises(UserError, match=r"in0\.wav: errors need pairs; give a manifest"):
        EffectDataModule(pairs, predict=str(tmp_path / "in0.wav")).setup("predict")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attack": (0.0, 0.03)}, r"ranges\.attack=\[0\.0, 0\.03\] is drawn on a logarithmic scale; begin above 0"),
        ({"release": (0.3, 0.3)}, r"ranges\.release=\[0\.3, 0\.3\] must be \[least, greatest\]"),
        ({"ratio": (0.5, 4.0)}, r"ranges\.ratio=\[0\.5, 4\.0\] must not begin below 1"),
    ],
)
def test_compressor_ranges_that_are_wrong(options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CompressorRanges(**options)


def test_compressed_programme_material() -> None:
    data = digits(CompressorDataModule, length=2048, eval_length=4096, batch_size=4)
    batch = next(iter(data.train_dataloader()))
    assert batch["input_ids"].shape == batch["labels"].shape == (4, 2048, 1)
    assert batch["controls"].shape == (4, 4)
    sample = data.test_set[0]
    settings = CompressorRanges().settings(sample["controls"])
    wanted, _ = compress(sample["input_ids"], 8000, settings)
    np.testing.assert_allclose(sample["labels"], wanted, atol=1e-7)
    np.testing.assert_array_equal(sample["labels"], data.test_set[SampleKey(0, 0)]["labels"])
    first, second = (data.train_set[SampleKey(epoch, 0)]["controls"] for epoch in (0, 1))
    assert not np.array_equal(first, second)
    # Training and evaluation draw different settings, also where neither draws a place.
    same = digits(CompressorDataModule, "fit")
    for index in range(5):
        assert not np.array_equal(same.train_set[index]["controls"], same.val_set[index]["controls"])
    ends = CompressorRanges().settings(np.array([0.0, 1.0, 0.5, 1.0]))
    assert (ends.threshold, ends.ratio) == (-40, 10)
    assert ends.attack == pytest.approx((0.001 * 0.03) ** 0.5)
    assert ends.release == pytest.approx(0.3)


def test_written_pairs_are_read_back(tmp_path: Path) -> None:
    recordings = digits(CompressorDataModule, "test").test_set.inputs.select(np.arange(3))
    recordings.names[1] = 'so "called", by name'
    ranges = CompressorRanges()
    manifest = write_compressed_pairs(recordings, AudioFormat(8000, 1), tmp_path / "pairs", ranges)
    limits = {name: getattr(ranges, name) for name in CONTROLS}
    data = ready(EffectDataModule(str(manifest), list(CONTROLS), limits), "test")
    assert len(data.test_set) == 3
    sample = data.test_set[1]
    assert 0 <= sample["controls"].min() <= sample["controls"].max() <= 1
    assert data.test_set.inputs.names[1] == 'so "called", by name'
    row = (tmp_path / "pairs/pairs.csv").read_text().splitlines()[2].split(",")
    settings = dict(zip(CONTROLS, map(float, row[-4:]), strict=True))
    wanted, _ = compress(sample["input_ids"], 8000, type(ranges.settings(np.zeros(4)))(knee=6, **settings))
    np.testing.assert_allclose(sample["labels"], wanted, atol=1e-6)
