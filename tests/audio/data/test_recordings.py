"""Lists of recordings: folders, manifests, known collections, splits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from longscan.audio.data.files import AudioFormat
from longscan.audio.data.manifest import read_folder, read_manifest
from longscan.audio.data.sources import read_collection, read_speech_commands, read_spoken_digits
from longscan.audio.data.splits import split_rows
from longscan.audio.data.windows import list_windows
from longscan.audio.resampling import resample
from longscan.core.errors import UserError

Record = Callable[..., np.ndarray]
MONO = AudioFormat(8000, 1)


# Folders


def test_a_folder_of_classes(tmp_path: Path, record: Record) -> None:
    for name in ("yes/b.wav", "yes/a.flac", "no/c.wav", "_noise_/x.wav", ".hidden/y.wav"):
        record(name)
    (tmp_path / "notes.txt").write_text("not audio")
    found = read_folder(tmp_path, labelled=True)
    assert found.names.tolist() == ["no/c.wav", "yes/a.flac", "yes/b.wav"]
    assert found.labels is not None
    assert found.labels.tolist() == ["no", "yes", "yes"]
    assert found.splits is None
    assert found.check(MONO).tolist() == [1000] * 3


def test_a_folder_with_splits(tmp_path: Path, record: Record) -> None:
    for name in ("train/yes/a.wav", "valid/yes/b.wav", "test/no/c.wav"):
        record(name)
    found = read_folder(tmp_path, labelled=True)
    assert found.labels is not None
    assert found.splits is not None
    assert found.labels.tolist() == ["no", "yes", "yes"]
    assert found.splits.tolist() == ["test", "train", "val"]
    assert read_folder(tmp_path / "train", labelled=False).labels is None


def test_folders_that_are_wrong(tmp_path: Path, record: Record) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read_folder(tmp_path / "gone", labelled=True)
    with pytest.raises(UserError, match="has no audio file"):
        read_folder(tmp_path, labelled=True)
    record("loose.wav")
    with pytest.raises(UserError, match=r"loose\.wav: is not in a class folder"):
        read_folder(tmp_path, labelled=True)


# Manifests


def test_manifests_of_three_kinds_say_the_same(tmp_path: Path, record: Record) -> None:
    samples = record("audio/a.wav", 500)
    record("audio/b.wav", 300)
    rows = [
        {"path": "audio/a.wav", "label": "x", "split": "train", "start": 100, "frames": 50, "speaker": "m,1"},
        {"path": "audio/b.wav", "label": "y", "split": "dev", "start": 0, "frames": 300, "speaker": "f"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    for ending, mark in ((".csv", ","), (".tsv", "\t")):
        lines = [mark.join(rows[0])]
        lines += [mark.join(f'"{v}"' if mark == "," else str(v) for v in row.values()) for row in rows]
        (tmp_path / f"m{ending}").write_text("\n".join(lines))
    for ending in (".jsonl", ".csv", ".tsv"):
        found = read_manifest(tmp_path / f"m{ending}")
        assert found.labels is not None
        assert found.splits is not None
        assert found.labels.tolist() == ["x", "y"]
        assert found.splits.tolist() == ["train", "val"]
        assert found.columns["speaker"].tolist() == ["m,1", "f"]
        assert found.check(MONO).tolist() == [50, 300]
        np.testing.assert_array_equal(found.read(0, MONO)[0], samples[100:150])
        np.testing.assert_array_equal(found.read(0, MONO, start=7, frames=9)[0], samples[107:116])
        assert found.select(np.array([1])).names.tolist() == ["audio/b.wav"]


def test_a_part_is_resampled_without_its_neighbours(tmp_path: Path, record: Record) -> None:
    samples = record("a.wav", 900)
    (tmp_path / "m.csv").write_text("path,start,frames\na.wav,300,301\n")
    found, wanted = read_manifest(tmp_path / "m.csv"), AudioFormat(4000, 1, resample=True)
    assert found.check(wanted).tolist() == [151]
    whole = resample(samples[300:601], 8000, 4000)
    np.testing.assert_array_equal(found.read(0, wanted)[0], whole)
    np.testing.assert_array_equal(found.read(0, wanted, start=40, frames=20)[0], whole[40:60])


def test_a_missing_file_is_named_before_any_other_is_read(tmp_path: Path, record: Record) -> None:
    record("other_rate.wav", rate=16_000)
    (tmp_path / "m.csv").write_text("path,label\nother_rate.wav,a\ngone.wav,b\nlost.wav,b\n")
    with pytest.raises(UserError, match=r"m\.csv:3: no such file: .*gone\.wav \(2 files are missing\)") as error:
        read_manifest(tmp_path / "m.csv").check(MONO)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("path,label\n", "has no row"),
        ("file,label\na.wav,x\n", r"no column 'path'"),
        ("path,label\na.wav,x,y\n", r"m\.csv:2: 3 columns, the header has 2"),
        ("path,path\na.wav,x\n", "a column name occurs twice"),
        ("path,label\n,x\n", r"m\.csv:2: the path is empty"),
        ("path,label\na.wav,x\nb.wav,\n", r"m\.csv:3: the label is empty; name a class"),
        ("path,split\na.wav,trian\n", r"m\.csv:2: unknown split 'trian' \(nearest: train"),
        ("path,start\na.wav,-4\n", r"m\.csv:2: start '-4' is not a number of frames"),
    ],
)
def test_manifests_that_are_wrong(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "m.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        read_manifest(tmp_path / "m.csv", label_column="label" if "label" in content else None)


def test_a_line_separator_in_a_name_ends_no_line(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"path": "a\u2028.wav"}\r\n\n{"path": "b.wav"}\n', encoding="utf-8")
    found = read_manifest(tmp_path / "m.jsonl")
    assert found.names.tolist() == ["a\u2028.wav", "b.wav"]
    assert found.lines.tolist() == [1, 3]


def test_other_manifests_that_are_wrong(tmp_path: Path, record: Record) -> None:
    for name, content, message in (
        ("m.jsonl", '{"path": "a"}\n{"path" "b"}\n', r"m\.jsonl:2: is not JSON"),
        ("m.jsonl", "[1]\n", r"m\.jsonl:1: is not a JSON object"),
        ("m.jsonl", '{"path": "a", "label": "x"}\n{"path": "b"}\n', r"m\.jsonl:2: has no 'label'"),
        ("m.xlsx", "path\n", "unknown ending '.xlsx' of a manifest"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=message):
            read_manifest(tmp_path / name)
    (tmp_path / "m.csv").write_bytes(b"path\n\xff\xfe.wav\n")
    with pytest.raises(UserError, match="is not UTF-8"):
        read_manifest(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("path\na.wav\n")
    with pytest.raises(UserError, match="no column 'label'"):
        read_manifest(tmp_path / "m.csv", label_column="label")
    record("a.wav", 100)
    (tmp_path / "m.csv").write_text("path,start,frames\na.wav,60,50\n")
    with pytest.raises(UserError, match=r"m\.csv:2: frames 60 to 110 are not inside the 100 frames"):
        read_manifest(tmp_path / "m.csv").check(MONO)


# Known collections


def test_packaged_spoken_digits() -> None:
    found = read_collection("spoken_digits", None)
    assert found.labels is not None
    assert found.splits is not None
    assert len(found) == 1500
    assert sorted(set(found.columns["speaker"])) == ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]
    indices = found.columns["index"].astype(int)
    np.testing.assert_array_equal(found.splits == "test", indices < 5)
    assert indices.max() == 24
    for speaker in set(found.columns["speaker"]):
        rows = found.columns["speaker"] == speaker
        assert np.unique(found.labels[rows], return_counts=True)[1].tolist() == [25] * 10
    # The official test recordings, whole.
    assert found.check(MONO)[found.splits == "test"].sum() == 1_034_030
    size = sum(path.stat().st_size for path in Path(found.origin).parent.iterdir() if path.is_file())
    assert size < 6_000_000
    assert (Path(found.origin).parent / "ATTRIBUTION.md").is_file()


def test_spoken_digits_by_their_names(tmp_path: Path, record: Record) -> None:
    for name in ("3_ann_0", "3_ann_5", "4_bob_4", "4_bob_12"):
        record(f"recordings/{name}.wav")
    record("recordings/other.wav")
    for folder in (tmp_path, tmp_path / "recordings"):
        found = read_spoken_digits(folder)
        assert found.labels is not None
        assert found.splits is not None
        assert found.names.tolist() == ["3_ann_0", "3_ann_5", "4_bob_12", "4_bob_4"]
        assert found.labels.tolist() == ["3", "3", "4", "4"]
        assert found.splits.tolist() == ["test", "train", "train", "test"]
        assert found.columns["speaker"].tolist() == ["ann", "ann", "bob", "bob"]
    with pytest.raises(UserError, match="no such folder"):
        read_spoken_digits(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no file named DIGIT_SPEAKER_INDEX"):
        read_spoken_digits(tmp_path / "empty")


def test_speech_commands(tmp_path: Path, record: Record) -> None:
    for word in ("yes", "no", "cat"):
        for speaker in ("aa", "bb", "cc"):
            record(f"{word}/{speaker}_nohash_0.wav", 100, 16_000)
    record("_background_noise_/hum.wav", 100, 16_000)
    (tmp_path / "validation_list.txt").write_text("yes/bb_nohash_0.wav\ncat/bb_nohash_0.wav\n")
    (tmp_path / "testing_list.txt").write_text("no/cc_nohash_0.wav\n")
    found = read_speech_commands(tmp_path)
    assert found.labels is not None
    assert found.splits is not None
    assert sorted(set(found.labels)) == ["cat", "no", "yes"]
    kinds = dict(zip(found.names, found.splits, strict=True))
    assert len(kinds) == 9
    assert [name for name, kind in kinds.items() if kind == "val"] == ["cat/bb_nohash_0.wav", "yes/bb_nohash_0.wav"]
    assert [name for name, kind in kinds.items() if kind == "test"] == ["no/cc_nohash_0.wav"]
    assert found.columns["speaker"].tolist()[:3] == ["aa", "bb", "cc"]
    assert len(read_speech_commands(tmp_path, ("yes", "no"))) == 6
    with pytest.raises(UserError, match=r"up: has no WAV file"):
        read_collection("speech_commands_10", tmp_path)
    with pytest.raises(UserError, match="not packaged; give folder"):
        read_collection("speech_commands_35", None)
    (tmp_path / "testing_list.txt").write_text("no/zz_nohash_0.wav\n")
    with pytest.raises(UserError, match=r"testing_list\.txt:1: no such file: .*zz"):
        read_speech_commands(tmp_path)
    (tmp_path / "testing_list.txt").unlink()
    with pytest.raises(UserError, match=r"testing_list\.txt: no such file; the official split"):
        read_speech_commands(tmp_path)


# Splits


def test_leaving_a_speaker_out() -> None:
    digits = read_collection("spoken_digits", None)
    rows = split_rows(digits, val_fraction=0.1, test_fraction=0.1, seed=0, hold_out_speaker="theo")
    assert {name: len(part) for name, part in rows.items()} == {"train": 1130, "val": 120, "test": 250}
    assert set(digits.columns["speaker"][rows["test"]]) == {"theo"}
    assert "theo" not in set(digits.columns["speaker"][np.concatenate([rows["train"], rows["val"]])])
    with pytest.raises(UserError, match=r"hold_out_speaker='teo' is no speaker .*nearest: theo"):
        split_rows(digits, val_fraction=0.1, test_fraction=0, seed=0, hold_out_speaker="teo")
    with pytest.raises(UserError, match="split='sorted' and hold_out_speaker='theo' contradict each other"):
        split_rows(digits, "sorted", val_fraction=0.1, test_fraction=0.1, seed=0, hold_out_speaker="theo")


def test_given_random_and_sorted_splits(tmp_path: Path, record: Record) -> None:
    digits = read_collection("spoken_digits", None)
    options = {"val_fraction": 0.1, "test_fraction": 0.2}
    given = split_rows(digits, seed=0, **options)
    assert digits.splits is not None
    assert digits.labels is not None
    assert len(given["test"]) == 300
    assert (digits.splits[given["test"]] == "test").all()
    assert np.unique(digits.labels[given["val"]], return_counts=True)[1].tolist() == [12] * 10
    random = split_rows(digits, "random", seed=0, **options)
    assert [len(random[name]) for name in ("train", "val", "test")] == [1080, 120, 300]
    assert sorted(np.concatenate(list(random.values())).tolist()) == list(range(1500))
    assert np.array_equal(random["test"], split_rows(digits, "random", seed=0, **options)["test"])
    assert not np.array_equal(random["test"], split_rows(digits, "random", seed=1, **options)["test"])
    ordered = split_rows(digits, "sorted", seed=0, val_fraction=0.06, test_fraction=0.06)
    assert [len(ordered[name]) for name in ("train", "val", "test")] == [1320, 90, 90]
    assert np.array_equal(np.concatenate(list(ordered.values())), np.arange(1500))
    record("a/1.wav")
    record("b/1.wav")
    few = read_folder(tmp_path, labelled=True)
    with pytest.raises(UserError, match="gives no splits"):
        split_rows(few, "given", seed=0, **options)
    with pytest.raises(UserError, match="2 recordings are too few"):
        split_rows(few, seed=0, **options)
    with pytest.raises(UserError, match="names no speakers"):
        split_rows(few, seed=0, hold_out_speaker="a", **options)


# Windows


def test_windows_cover_every_frame() -> None:
    lengths = np.array([10, 4, 25])
    tiles = list_windows(lengths, 10, random=False)
    assert list(zip(tiles.row, tiles.first, tiles.frames, strict=True)) == [
        (0, 0, 10),
        (1, 0, 4),
        (2, 0, 10),
        (2, 10, 10),
        (2, 20, 5),
    ]
    moving = list_windows(lengths, 10, random=True)
    assert list(zip(moving.row, moving.first, moving.last, moving.frames, strict=True)) == [
        (0, 0, 0, 10),
        (1, 0, 0, 4),
        (2, 0, 5, 10),
        (2, 5, 10, 10),
        (2, 10, 15, 10),
    ]
    generator = np.random.default_rng(0)
    assert {moving.start(2, generator) for _ in range(200)} == {0, 1, 2, 3, 4, 5}
    whole = list_windows(lengths, None, random=True)
    assert whole.frames.tolist() == [10, 4, 25]
