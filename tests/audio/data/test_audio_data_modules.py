"""The data modules: batches as promised, deterministic and resumable, and mistakes told before training."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from longscan.audio.data import (
    AudioClassificationDataModule,
    AudioTokenDataModule,
    CompressorDataModule,
)
from longscan.audio.data.augmentation import Augmentation, at_speed, lowpass, shifted
from longscan.audio.data.files import AudioFormat
from longscan.audio.features import MelFeatures, SpecAugment
from longscan.audio.quantization import Quantizer
from longscan.core.errors import UserError
from longscan.core.training.data import SampleKey

Record = Callable[..., np.ndarray]


def ready(module: Any, stage: str | None = None) -> Any:
    module.setup(stage)
    return module


def digits(kind: Any = AudioClassificationDataModule, stage: str | None = None, **options: Any) -> Any:
    return ready(kind(dataset="spoken_digits", **options), stage)


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) if isinstance(one[name], torch.Tensor) else one[name] == other[name]
        for name in one
    )


# Classification


def test_spoken_digits_batches() -> None:
    data = digits(length=8000, batch_size=64)
    assert data.class_names == list("0123456789")
    assert data.num_classes == 10
    assert data.sample_rate == 8000
    assert [len(part) for part in (data.train_set, data.val_set, data.test_set)] == [1080, 120, 300]
    seen = torch.zeros(10, dtype=torch.int64)
    for batch in data.train_dataloader():
        assert batch["input_ids"].shape[1:] == (8000, 1)
        assert batch["input_ids"].dtype == torch.float32
        assert batch["mask"].shape == (len(batch["labels"]), 8000)
        assert batch["labels"].dtype == torch.int64
        assert not batch["input_ids"][~batch["mask"]].any()
        seen += batch["labels"].bincount(minlength=10)
    assert seen.tolist() == [108] * 10
    # A sample is the recording that its label speaks of.
    row = 17
    sample = data.test_set[row]
    recordings = data.test_set.recordings
    samples, _ = recordings.read(row, AudioFormat(8000, 1))
    np.testing.assert_array_equal(sample["samples"][: len(samples)], samples)
    assert sample["label"] == int(recordings.names[row][0])


def test_hold_out_speaker_and_the_whole_collection(tmp_path: Path, record: Record) -> None:
    data = digits(hold_out_speaker="george", limit_train=50)
    assert set(data.test_set.recordings.columns["speaker"]) == {"george"}
    assert len(data.train_set) == 50
    for speaker in ("ann", "bob"):
        for digit in range(3):
            for index in (0, 5, 6):
                record(f"{digit}_{speaker}_{index}.wav")
    whole = digits(folder=str(tmp_path), hold_out_speaker="ann", val_fraction=0.3)
    assert [len(part) for part in (whole.train_set, whole.val_set, whole.test_set)] == [6, 3, 9]
    assert whole.class_names == ["0", "1", "2"]


def test_batches_do_not_depend_on_workers_and_change_with_the_epoch() -> None:
    augmentation = Augmentation(shift_seconds=0.1, gain_db=6, noise_probability=0.5)
    options: dict[str, Any] = {"length": 2000, "limit_train": 40, "batch_size": 16, "augmentation": augmentation}
    loader = digits(stage="fit", **options).train_dataloader()
    first, second = list(loader), list(loader)
    parallel = digits(stage="fit", num_workers=2, **options).train_dataloader()
    for batch, other in zip([*first, *second], [*parallel, *parallel], strict=True):
        assert equal(batch, other)
    assert not torch.equal(first[0]["input_ids"], second[0]["input_ids"])
    dataset = digits(stage="fit", **options).train_set
    one, again, later = (dataset[SampleKey(epoch, 3)]["samples"] for epoch in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, later)
    other_seed = digits(stage="fit", seed=1, **options).train_set
    assert not np.array_equal(other_seed[SampleKey(1, 3)]["samples"], one)


def test_training_resumes_in_mid_epoch() -> None:
    options: dict[str, Any] = {
        "length": 1000,
        "limit_train": 40,
        "batch_size": 8,
        "augmentation": Augmentation(gain_db=3),
    }
    data = digits(stage="fit", **options)
    iterator = iter(data.train_dataloader())
    for _ in range(2):
        next(iterator)
    state = data.state_dict()
    rest = list(iterator)
    resumed = digits(stage="fit", **options)
    resumed.load_state_dict(state)
    again = list(resumed.train_dataloader())
    assert len(rest) == len(again) == 3
    assert all(equal(batch, other) for batch, other in zip(rest, again, strict=True))


def test_lengths_padding_and_crops(tmp_path: Path, record: Record) -> None:
    long, short = record("a/long.wav", 1000), record("b/short.wav", 300)
    options: dict[str, Any] = {"folder": str(tmp_path), "val_fraction": 0.0, "test_fraction": 0.0}
    data = ready(AudioClassificationDataModule(length=400, padding="center", **options), "fit")
    starts = set()
    for epoch in range(20):
        crop = data.train_set[SampleKey(epoch, 0)]["samples"]
        start = int(np.flatnonzero((long == crop[0]).all(1))[0])
        np.testing.assert_array_equal(crop, long[start : start + 400])
        starts.add(start)
    assert len(starts) > 10
    centred = data.train_set[SampleKey(0, 1)]
    assert (centred["begin"], centred["end"]) == (50, 350)
    np.testing.assert_array_equal(centred["samples"][50:350], short)
    assert not centred["samples"][:50].any()
    batch = data.collate([data.train_set[0], data.train_set[1]])
    assert batch["mask"].sum(1).tolist() == [400, 300]
    whole = ready(AudioClassificationDataModule(mask_padding=False, batch_size=2, **options), "fit")
    batch = next(iter(whole.train_dataloader()))
    assert batch["input_ids"].shape == (2, 1000, 1)
    assert "mask" not in batch
    # The published tests at another rate.
    thinned = ready(AudioClassificationDataModule(decimation=2, length=1001, **options), "fit").train_set[0]
    assert thinned["samples"].shape == (501, 1)
    np.testing.assert_array_equal(thinned["samples"][:500], long[::2])


def test_evaluation_mixes_no_lengths_unless_told(tmp_path: Path, record: Record) -> None:
    for name, frames in (("a/1.wav", 100), ("a/2.wav", 200), ("b/1.wav", 100), ("b/2.wav", 200)):
        record(f"test/{name}", frames)
    folder, names = str(tmp_path), ["a", "b"]
    data = ready(AudioClassificationDataModule(folder=folder, class_names=names, batch_size=4), "test")
    batches = list(data.test_dataloader()[0])
    assert [batch["input_ids"].shape[:2] for batch in batches] == [(2, 100), (2, 200)]
    options: dict[str, Any] = {"class_names": names, "batch_size": 4, "length_buckets": False}
    mixed = ready(AudioClassificationDataModule(folder=folder, **options), "test")
    assert [len(batch["labels"]) for batch in mixed.test_dataloader()[0]] == [4]


def test_normalization() -> None:
    raw = digits(stage="test", normalize="none").test_set[3]["samples"]
    peak, rms, standard = (
        digits(stage="test", normalize=how).test_set[3]["samples"] for how in ("peak", "rms", "standard")
    )
    assert np.abs(peak).max() == pytest.approx(1)
    assert np.sqrt(np.mean(rms**2)) == pytest.approx(0.1, rel=1e-5)
    assert standard.mean() == pytest.approx(0, abs=1e-6)
    assert standard.std() == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(peak * np.abs(raw).max(), raw, atol=1e-7)


def test_prediction_of_a_file_a_folder_and_a_list(tmp_path: Path, record: Record) -> None:
    record("x/b.wav", 100)
    record("x/a.wav", 50)
    options: dict[str, Any] = {"sample_rate": 8000, "class_names": ["no", "yes"]}
    for given, names in (
        (str(tmp_path / "x"), ["a.wav", "b.wav"]),
        (str(tmp_path / "x/b.wav"), [str(tmp_path / "x/b.wav")]),
        ([str(tmp_path / "x/b.wav")], [str(tmp_path / "x/b.wav")]),
    ):
        data = ready(AudioClassificationDataModule(predict=given, **options), "predict")
        batches = list(data.predict_dataloader())
        found = {i: name for batch in batches for i, name in zip(batch["index"].tolist(), batch["name"], strict=True)}
        assert [found[i] for i in sorted(found)] == names
        assert "labels" not in batches[0]


def test_mel_features_and_masks() -> None:
    features = MelFeatures(mels=20, window=256, hop=80)
    data = digits(stage="fit", length=4000, features=features, spec_augment=SpecAugment(), limit_train=20)
    batch = data.collate([data.val_set[i] for i in range(4)])
    assert batch["input_ids"].shape == (4, 51, 20)
    frames = [len(data.val_set.recordings.read(i, data.format)[0]) for i in range(4)]
    assert batch["mask"].sum(1).tolist() == [1 + (min(count, 4000) - 1) // 80 for count in frames]
    masked = data.train_set[SampleKey(0, 0)]["samples"]
    np.testing.assert_array_equal(masked, data.train_set[SampleKey(0, 0)]["samples"])
    plain = digits(stage="fit", length=4000, features=features, limit_train=20).train_set[SampleKey(0, 0)]
    changed = masked != plain["samples"]
    assert 0 < changed.mean() < 0.9
    state = torch.random.get_rng_state()
    data.train_set[SampleKey(0, 1)]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_tone_lies_in_its_mel_band() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000).astype(np.float32)[:, None]
    found = MelFeatures(mels=40, window=512, hop=128)(tone, 8000)
    assert found.shape == (63, 40)
    # Mel scale (HTK): band edges at 42 equal steps up to that of 4 kHz.
    mel = 2595 * np.log10(1 + np.array([1000, 4000]) / 700)
    assert abs(found[30].argmax() + 1 - 41 * mel[0] / mel[1]) <= 1


# Augmentation


def test_augmentation_by_parts() -> None:
    samples = np.arange(1.0, 11.0, dtype=np.float32)[:, None] / 100
    np.testing.assert_array_equal(shifted(samples, 3)[:, 0], [0, 0, 0, *samples[:7, 0]])
    np.testing.assert_array_equal(shifted(samples, -3)[:, 0], [*samples[3:, 0], 0, 0, 0])
    assert not shifted(samples, 50).any()
    unchanged, begin, end = Augmentation()(samples, 8000, np.random.default_rng(0), 2, 8)
    np.testing.assert_array_equal(unchanged, samples)
    assert (begin, end) == (2, 8)
    gains, shifts, signs = [], set(), set()
    for seed in range(300):
        generator = np.random.default_rng
        gains.append(Augmentation(gain_db=6)(samples, 8000, generator(seed))[0][0, 0] / samples[0, 0])
        moved, begin, end = Augmentation(shift_seconds=2 / 8000)(samples, 8000, generator(seed), 2, 8)
        shifts.add(begin - 2)
        np.testing.assert_array_equal(moved[begin:end], samples[2:8])
        signs.add(float(np.sign(Augmentation(polarity=True)(samples, 8000, generator(seed))[0][0, 0])))
    assert 10 ** (-6 / 20) <= min(gains) < 0.55
    assert 1.8 < max(gains) <= 10 ** (6 / 20)
    assert shifts == {-2, -1, 0, 1, 2}
    far = Augmentation(shift_seconds=1)
    kept = [far(samples, 8000, np.random.default_rng(seed), 2, 8)[1:] for seed in range(20)]
    assert {end - begin for begin, end in kept} == {3}
    assert signs == {1, -1}


def test_noise_has_the_ratio_it_should() -> None:
    samples = np.zeros((20_000, 1), dtype=np.float32)
    samples[5000:15_000] = np.random.default_rng(1).standard_normal((10_000, 1)) * 0.1
    augmentation = Augmentation(noise_probability=1, noise_snr_db=(20, 20))
    noisy, *_ = augmentation(samples, 8000, np.random.default_rng(0), 5000, 15_000)
    assert (noisy - samples).std() == pytest.approx(0.01, rel=0.03)
    with pytest.raises(UserError, match="noise_snr_db"):
        Augmentation(noise_snr_db=(30, 10))
    with pytest.raises(UserError, match=r"gain_db=-1 must not be negative"):
        Augmentation(gain_db=-1)


def test_speed_moves_the_pitch_and_the_end() -> None:
    rate, begin, end = 8000, 500, 4500
    window = np.zeros((6000, 1), dtype=np.float32)
    window[begin:end, 0] = np.sin(2 * np.pi * 400 * np.arange(end - begin) / rate)
    for speed in (0.8, 1.0, 1.25):
        played, new_end = at_speed(window, begin, end, speed)
        assert played.dtype == np.float32
        assert new_end - begin == pytest.approx((end - begin) / speed, abs=1)
        assert not played[:begin].any()
        assert not played[new_end:].any()
        steady = played[begin + 400 : new_end - 400, 0]
        spectrum = np.abs(np.fft.rfft(steady * np.hanning(len(steady)), 1 << 16))
        assert spectrum.argmax() * rate / (1 << 16) == pytest.approx(400 * speed, abs=0.5)
        assert np.abs(steady).max() == pytest.approx(1, abs=0.02)
    cut, new_end = at_speed(window, begin, end, 0.5)
    assert new_end == 6000
    assert len(cut) == 6000
    ends = {
        Augmentation(speed=(0.8, 1.25))(window, rate, np.random.default_rng(seed), begin, end)[2] for seed in range(99)
    }
    assert begin + 3200 <= min(ends) < begin + 3400
    assert begin + 4800 < max(ends) <= begin + 5000
    with pytest.raises(UserError, match=r"speed=\[1.2, 0.9\] must be"):
        Augmentation(speed=(1.2, 0.9))


def test_lowpass() -> None:
    rate, t = 8000, np.arange(8000) / 8000
    for frequency, expected in ((200, 1.0), (1000, 10 ** (-3.01 / 20)), (2000, 0.0), (3500, 0.0)):
        tone = np.sin(2 * np.pi * frequency * t).astype(np.float32)[:, None]
        filtered = lowpass(tone, rate, 1000)
        assert filtered.dtype == np.float32
        assert np.abs(filtered[2000:6000]).max() == pytest.approx(expected, abs=0.02)
    assert lowpass(tone, rate, 4000) is tone
    narrow = Augmentation(lowpass_probability=1, lowpass_hz=(500, 600))(tone, rate, np.random.default_rng(0))[0]
    assert np.abs(narrow[2000:6000]).max() < 1e-3
    with pytest.raises(UserError, match=r"lowpass_hz=\[0, 10\] must be"):
        Augmentation(lowpass_hz=(0, 10))


# Codes


def test_every_sample_of_the_test_recordings_is_predicted_once() -> None:
    for options in ({}, {"eval_length": 1000}):
        data = digits(AudioTokenDataModule, "test", eval_batch_size=50, pad_multiple=16, **options)
        total = 0
        for batch in data.test_dataloader()[0]:
            assert batch["input_ids"].shape == batch["labels"].shape
            assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64
            assert batch["labels"].shape[1] % 16 == 0
            total += int((batch["labels"] != -100).sum())
        assert total == 1_034_030


def test_codes_are_the_samples_one_later() -> None:
    data = digits(AudioTokenDataModule, length=512, batch_size=8)
    assert data.vocab_size == 256
    sample = data.train_set[SampleKey(2, 30)]
    assert sample["input_ids"][0] == 128
    np.testing.assert_array_equal(sample["input_ids"][1:], sample["labels"][:-1])
    whole = data.test_set[5]
    samples, _ = data.test_set.recordings.read(5, data.format)
    np.testing.assert_array_equal(whole["labels"], Quantizer().encode(samples[:, 0]))
    batch = data.collate([data.test_set[5], data.test_set[6]])
    lengths = data.test_set.lengths[5:7]
    short = int(lengths.argmin())
    assert (batch["labels"][short, lengths[short] :] == -100).all()
    assert (batch["input_ids"][short, lengths[short] :] == 128).all()
    published = digits(AudioTokenDataModule, "test", quantizer=Quantizer(range="minmax")).test_set[5]
    assert published["labels"].min() == 0
    assert published["labels"].max() == 255


def test_training_windows_move_with_the_epoch_and_can_change_their_length() -> None:
    data = digits(AudioTokenDataModule, "fit", length=1000, limit_train=30)
    expected = (-(-data.train_set.lengths // 1000)).sum()
    assert len(data.train_set) == expected
    assert len({data.train_set[SampleKey(epoch, 0)]["labels"].tobytes() for epoch in range(5)}) == 5
    data.set_stage(400, 4)
    batch = next(iter(data.train_dataloader()))
    assert batch["labels"].shape == (4, 400)
    assert len(data.val_set) == 120  # evaluation stays: whole recordings


# Mistakes


def test_mistakes_are_told_before_training(tmp_path: Path, record: Record) -> None:
    record("a/1.wav", 500, 16_000)
    record("b/1.wav", 500, 16_000)
    record("b/2.wav", 500, 16_000, 2)
    folder = str(tmp_path)
    options: dict[str, Any] = {"folder": folder, "val_fraction": 0.0, "test_fraction": 0.0}
    with pytest.raises(UserError, match=r"16000 Hz but 8000 Hz .*--data\.resample true"):
        ready(AudioClassificationDataModule(sample_rate=8000, **options), "fit")
    with pytest.raises(UserError, match=r"b/2\.wav: has 2 channel\(s\) but 1 .*--data\.mixdown true"):
        ready(AudioClassificationDataModule(**options), "fit")
    data = ready(AudioClassificationDataModule(sample_rate=8000, resample=True, mixdown=True, **options), "fit")
    assert data.train_set.lengths.tolist() == [250, 250, 250]
    with pytest.raises(UserError, match=r"a/1\.wav: the model knows no label 'a' \(nearest|known: b, c"):
        ready(AudioClassificationDataModule(mixdown=True, class_names=["b", "c"], **options), "fit")
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps({"path": "a/1.wav", "label": "a"}) + "\n" + json.dumps({"path": "x", "label": "b"}))
    with pytest.raises(UserError, match=r"m\.jsonl:2: no such file: .*/x"):
        ready(AudioClassificationDataModule(manifest=str(manifest), val_fraction=0.0, test_fraction=0.0), "fit")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/bad.wav").write_bytes(b"not audio" * 9)
    with pytest.raises(UserError, match=r"bad\.wav: is not an audio file"):
        ready(AudioClassificationDataModule(mixdown=True, **options), "fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no data: give dataset, folder, manifest or predict"),
        ({"dataset": "spoken_digit"}, r"unknown dataset 'spoken_digit' \(nearest: spoken_digits"),
        ({"dataset": "spoken_digits", "manifest": "m.csv"}, "dataset and manifest exclude each other"),
        ({"dataset": "spoken_digits", "split": "sort"}, "split='sort' is unknown"),
        ({"dataset": "spoken_digits", "val_fraction": 1.0}, r"val_fraction=1\.0 must lie in"),
        ({"dataset": "spoken_digits", "length": 0}, "length=0 must be at least 1"),
        ({"dataset": "spoken_digits", "normalize": "loud"}, "normalize='loud' is unknown"),
        ({"dataset": "spoken_digits", "spec_augment": SpecAugment()}, "set features too"),
        ({"dataset": "spoken_digits", "class_names": ["a", "a"]}, "a name occurs twice"),
        ({"dataset": "spoken_digits", "limit_train": 0}, "limit_train=0"),
    ],
)
def test_arguments_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AudioClassificationDataModule(**options)


def test_what_is_missing_for_a_verb(tmp_path: Path, record: Record) -> None:
    with pytest.raises(UserError, match="nothing to predict; give predict"):
        digits(stage="predict")
    record("x.wav")
    with pytest.raises(UserError, match="no training data"):
        ready(AudioTokenDataModule(predict=str(tmp_path / "x.wav")), "fit")
    with pytest.raises(UserError, match="classes are unknown without training data"):
        _ = AudioClassificationDataModule(predict=str(tmp_path / "x.wav")).class_names
    with pytest.raises(UserError, match="codes are of one channel"):
        AudioTokenDataModule(dataset="spoken_digits", channels=2)


def test_a_module_for_spawned_workers_carries_no_lists() -> None:
    data = digits(length=1000)
    copy = pickle.loads(pickle.dumps(data))
    assert copy.train_set is None
    batch = copy.collate([data.train_set[0], data.train_set[1]])
    assert batch["input_ids"].shape == (2, 1000, 1)
    assert len(pickle.dumps(data)) < 20_000


def test_the_command_line_builds_every_module() -> None:
    """Options that a module passes on to its base are found by name, with their types."""
    from jsonargparse import ArgumentParser

    for kind, words in (
        (AudioClassificationDataModule, ["--data.augmentation.gain_db", "3", "--data.length", "400"]),
        (AudioTokenDataModule, ["--data.quantizer.range", "minmax", "--data.eval_length", "100"]),
        (CompressorDataModule, ["--data.ranges.knee", "3", "--data.length", "null"]),
    ):
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(kind, "data", fail_untyped=False)
        line = ["--data.dataset", "spoken_digits", "--data.hold_out_speaker", "theo", "--data.batch_size", "3", *words]
        data = parser.instantiate(parser.parse_args(line)).data
        assert (data.hold_out_speaker, data.batch_size) == ("theo", 3)
        if kind is AudioClassificationDataModule:
            assert data.augmentation.gain_db == 3
        elif kind is AudioTokenDataModule:
            assert data.quantizer == Quantizer(range="minmax")
        else:
            assert data.ranges.knee == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_sample_is_one_line_whichever_process_finds_it(tmp_path: Path, workers: int) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 500)
    samples[123] = np.nan
    soundfile.write(tmp_path / "bad.wav", samples, 8000, subtype="FLOAT")
    options: dict[str, Any] = {"val_fraction": 0.0, "test_fraction": 0.0, "num_workers": workers}
    data = ready(AudioTokenDataModule(folder=str(tmp_path), **options), "fit")
    with pytest.raises(UserError) as error:
        list(data.train_dataloader())
    assert str(error.value).startswith(f"{tmp_path / 'bad.wav'}: a sample is NaN (frame 123)")
    assert "\n" not in str(error.value)
