"""Where images come from: folders, archives, CIFAR's pickles, tar files; and what is said of those that are broken."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import write_classes, write_image
from PIL import Image

from longscan.core.errors import UserError
from longscan.vision.data.archives import read_cifar, read_digits, read_npz
from longscan.vision.data.classification import ImageClassificationDataModule
from longscan.vision.data.decoding import decode_image
from longscan.vision.data.folders import read_class_folders, read_plain_folder
from longscan.vision.data.timm_readers import read_timm


def encoded(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


def jpegs(path: Path, counts: dict[str, int]) -> dict[str, list[np.ndarray]]:
    """Write an archive of encoded images as that of CIFAR-10 is, two classes in turn."""
    arrays: dict[str, Any] = {"classes": np.array(["odd", "even"])}
    images: dict[str, list[np.ndarray]] = {}
    for split, count in counts.items():
        generator = np.random.default_rng(count)
        images[split] = [generator.integers(0, 256, (4, 5, 3)).astype(np.uint8) for _ in range(count)]
        files = [encoded(image) for image in images[split]]
        arrays[f"{split}_jpeg"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"{split}_len"] = np.array([len(file) for file in files], np.uint16)
        arrays[f"{split}_y"] = np.arange(count, dtype=np.uint8) % 2
    np.savez_compressed(path, **arrays)
    return images


def test_class_folders(tmp_path: Path) -> None:
    write_classes(tmp_path, 3, ("b", "a"))
    found = read_class_folders(tmp_path)
    assert found.class_names == ("a", "b")
    assert list(found.names) == [f"{name}/{index:02d}.png" for name in "ab" for index in range(3)]
    assert found.labels is not None
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.splits is None
    assert np.array_equal(np.asarray(found.read(4)), np.asarray(Image.open(tmp_path / "b" / "01.png")))


def test_split_folders(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("validation", 1), ("test", 2)):
        write_classes(tmp_path / split, count, ("x", "y"))
    found = read_class_folders(tmp_path)
    assert found.splits is not None
    assert [int((found.splits == split).sum()) for split in ("train", "val", "test")] == [6, 2, 4]
    assert str(found.names[0]) == "train/x/00.png"
    write_image(tmp_path / "test" / "z" / "0.png")
    with pytest.raises(UserError, match=r"test/z: a class that .* has no training images of"):
        read_class_folders(tmp_path)


def test_no_image_is_left_out_in_silence(tmp_path: Path) -> None:
    """Images beside the class folders or beside the folders of splits, and links to nothing."""
    write_classes(tmp_path / "a", 2, ("x", "y"))
    write_image(tmp_path / "a" / "stray.png")
    with pytest.raises(UserError, match=r"stray.png: is in no class folder"):
        read_class_folders(tmp_path / "a")
    write_classes(tmp_path / "b", 2, ("control", "test"))
    with pytest.raises(UserError, match=r"control: has images, but test beside it is taken for a split"):
        read_class_folders(tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "gone.png").symlink_to(tmp_path / "nothing.png")
    with pytest.raises(UserError, match=r"gone.png: is a link to a file that there is not"):
        read_plain_folder(tmp_path / "c")


def test_columns_of_pixels_and_names_in_bytes(tmp_path: Path) -> None:
    """Images that are one pixel wide; class names as bytes."""
    values = np.arange(24, dtype=np.uint8).reshape(4, 6, 1)
    names = np.array([b"a", "ü".encode()])
    np.savez(tmp_path / "a.npz", x_train=values, y_train=np.array([0, 1, 0, 1]), classes=names)
    found = read_npz(str(tmp_path / "a.npz"))
    assert found.class_names == ("a", "ü")
    assert np.array_equal(np.asarray(found.read(2, 1)), values[2])


def test_an_empty_class_folder(tmp_path: Path) -> None:
    write_classes(tmp_path, 2)
    (tmp_path / "grey").mkdir()
    (tmp_path / "grey" / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match="grey: the class folder has no images; add some or remove the folder"):
        read_class_folders(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        read_class_folders(tmp_path / "none")
    with pytest.raises(UserError, match="has no class folders"):
        read_class_folders(tmp_path / "grey")
    with pytest.raises(UserError, match="has no images"):
        read_plain_folder(tmp_path / "grey")


def test_broken_images_are_named(tmp_path: Path) -> None:
    write_image(tmp_path / "whole.png", (40, 30))
    content = (tmp_path / "whole.png").read_bytes()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "whole.jpg")
    jpeg = (tmp_path / "whole.jpg").read_bytes()
    for name, data, message in (
        ("cut.png", content[: len(content) // 2], "cut short or damaged"),
        ("cut.jpg", jpeg[: len(jpeg) // 2], "cut short or damaged"),
        ("text.png", b"hello there", "is no image that Pillow can read"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name}: .*{message}") as error:
            decode_image(tmp_path / name, str(tmp_path / name))
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"gone.png: no such file"):
        decode_image(tmp_path / "gone.png", "gone.png")


def test_modes_of_images() -> None:
    """Sixteen bits are scaled, not clipped; 32 are refused; grey becomes colour and the other way round."""
    deep = np.array([[0, 256 * 7, 65535]], np.uint16)
    assert np.asarray(decode_image(encoded(deep), "deep", 1)).tolist() == [[0, 7, 255]]
    assert np.asarray(decode_image(encoded(deep), "deep", 3)).tolist() == [[[0] * 3, [7] * 3, [255] * 3]]
    stream = io.BytesIO()
    Image.fromarray(np.ones((2, 2), np.float32)).save(stream, "TIFF")
    with pytest.raises(UserError, match="values of 32 bits"):
        decode_image(stream.getvalue(), "float", 1)
    colour = decode_image(encoded(np.full((2, 2, 4), 9, np.uint8)), "alpha", 3)
    assert (colour.mode, colour.getpixel((0, 0))) == ("RGB", (9, 9, 9))


def test_damaged_images_are_told_before_training(tmp_path: Path) -> None:
    write_classes(tmp_path, 10)
    for name in ("dark/03.png", "light/05.png"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:60])
    options = {"folder": str(tmp_path), "img_size": 8, "test_fraction": 0.0, "val_fraction": 0.0}
    data = ImageClassificationDataModule(check_images=True, **options)
    with pytest.raises(UserError, match=r"dark/03.png: .* \(and 1 more like it\)"):
        data.setup("fit")
    data = ImageClassificationDataModule(batch_size=20, **options)
    data.setup("fit")
    with pytest.raises(UserError, match=r"(dark/03|light/05).png: is cut short or damaged"):
        list(data.train_dataloader())
    (tmp_path / "dark" / "03.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"03.png: the file is empty"):
        read_class_folders(tmp_path)


def test_encoded_archives(tmp_path: Path) -> None:
    images = jpegs(tmp_path / "a.npz", {"train": 6, "test": 3})
    found = read_npz(str(tmp_path / "a.npz"))
    assert found.class_names == ("odd", "even")
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert found.splits is not None
    assert found.splits.tolist() == ["train"] * 6 + ["test"] * 3
    for row in range(9):
        wanted = images["train"][row] if row < 6 else images["test"][row - 6]
        assert np.array_equal(np.asarray(found.read(row)), wanted)
    assert found.where(7) == f"{tmp_path / 'a.npz'}: image test/1"
    part = found.select(np.array([8, 2]))
    assert np.array_equal(np.asarray(part.read(0)), images["test"][2])


@pytest.mark.parametrize("names", [("x_{}", "y_{}"), ("{}_images", "{}_labels")])
def test_archives_of_pixels(tmp_path: Path, names: tuple[str, str]) -> None:
    generator = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 5), ("test", 2)):
        arrays[names[0].format(split)] = generator.integers(0, 256, (count, 6, 4)).astype(np.uint8)
        arrays[names[1].format(split)] = (np.arange(count) % 3).reshape(-1, 1)
    np.savez(tmp_path / "p.npz", **arrays)
    found = read_npz(str(tmp_path / "p.npz"))
    assert (found.pixel_size, found.class_names) == ((6, 4), ("0", "1", "2"))
    assert np.array_equal(np.asarray(found.read(6, 1)), arrays[names[0].format("test")][1])


def test_archives_that_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "pickled.npz", x_train=np.array([{"a": 1}], dtype=object), y_train=np.zeros(1, int))
    (tmp_path / "text.npz").write_text("nothing")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "float.npz", x_train=np.zeros((2, 3, 3)), y_train=np.zeros(2, int))
    np.savez(tmp_path / "few.npz", x_train=np.zeros((2, 3, 3), np.uint8), y_train=np.zeros(3, int))
    for name, message in (
        ("pickled", "refused, since it holds pickled objects"),
        ("text", "is no .npz archive or is damaged"),
        ("other", r"its arrays \(a\) are not images of splits"),
        ("float", "x_train is float64"),
        ("few", "expected the class index of each of 2 images"),
        ("gone", "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            read_npz(str(tmp_path / f"{name}.npz"))


def write_cifar(folder: Path) -> np.ndarray:
    """Write CIFAR-10's files with 4 images in each batch; return all training images, (20, 32, 32, 3)."""
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (24, 3, 32, 32)).astype(np.uint8)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for number, name in enumerate(names):
        rows = values[4 * number : 4 * number + 4].reshape(4, -1)
        batch = {b"data": rows, b"labels": [0, 1, 2, 9], b"batch_label": b"x", b"filenames": [b"a.png"] * 4}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=4))
    labels = [f"class{index}".encode() for index in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": labels}, protocol=4))
    return values[:20].transpose(0, 2, 3, 1)


def test_cifar_batches(tmp_path: Path) -> None:
    values = write_cifar(tmp_path / "c")
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "c", "cifar-10-batches-py")
    for place in (tmp_path / "c", tmp_path / "c.tar.gz"):
        found = read_cifar(place)
        assert (len(found), found.pixel_size) == (24, (32, 32))
        assert found.class_names is not None
        assert found.class_names[9] == "class9"
        assert found.labels is not None
        assert found.labels[:5].tolist() == [0, 1, 2, 9, 0]
        assert np.array_equal(np.asarray(found.read(7)), values[7])


class _Code:
    def __reduce__(self) -> Any:
        return (print, ("this must not run",))


def test_cifar_batches_with_code_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cifar(tmp_path / "c")
    (tmp_path / "c" / "data_batch_3").write_bytes(pickle.dumps({b"data": _Code()}))
    with pytest.raises(UserError, match=r"data_batch_3: holds pickled code \(builtins.print\), refused"):
        read_cifar(tmp_path / "c")
    assert "must not run" not in capsys.readouterr().out
    (tmp_path / "c" / "data_batch_3").write_bytes(b"\x80\x04garbage")
    with pytest.raises(UserError, match="data_batch_3: is damaged"):
        read_cifar(tmp_path / "c")
    (tmp_path / "c" / "data_batch_3").unlink()
    with pytest.raises(UserError, match="has no data_batch_3"):
        read_cifar(tmp_path / "c")


def test_tar_files_through_timm(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", 4)
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        for name in ("dark", "light"):
            archive.add(tmp_path / "images" / name, name)
    found = read_timm("", str(tmp_path / "images.tar"), "train")
    assert found.class_names == ("dark", "light")
    assert len(found) == 8
    row = [str(name) for name in found.names].index("light/02.png")
    wanted = Image.open(tmp_path / "images" / "light" / "02.png")
    assert np.array_equal(np.asarray(found.read(row)), np.asarray(wanted))
    assert found.labels is not None
    assert found.labels[row] == 1
    copy = pickle.loads(pickle.dumps(found))  # as loader processes that are spawned receive it
    assert np.array_equal(np.asarray(copy.read(row)), np.asarray(wanted))


def test_tar_files_with_splits(tmp_path: Path) -> None:
    """Test images in a tar file do not become training images."""
    for split, count in (("train", 3), ("valid", 1), ("test", 2)):
        write_classes(tmp_path / "set" / split, count, ("x", "y"))
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(tmp_path / "set", "set")
    found = read_timm("", str(tmp_path / "set.tar"), "train")
    assert found.splits is not None
    assert [str(name).split("/")[1] for name in found.names] == [
        {"val": "valid"}.get(split, split) for split in found.splits
    ]
    data = ImageClassificationDataModule(archive=str(tmp_path / "set.tar"))
    assert {name: len(part) for name, part in data.splits().items()} == {"train": 6, "val": 2, "test": 4}
    write_image(tmp_path / "set" / "more" / "x" / "0.png")
    with tarfile.open(tmp_path / "mixed.tar", "w") as archive:
        archive.add(tmp_path / "set", "set")
    with pytest.raises(UserError, match=r"is in a folder of a split, set/more/x/0.png is not"):
        read_timm("", str(tmp_path / "mixed.tar"), "train")


def test_readers_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="reads a stream, in which training cannot be resumed"):
        read_timm("wds/somewhere", None, "train")
    with pytest.raises(UserError, match="no such file"):
        read_timm("", str(tmp_path / "none.tar"), "train")


def test_digits() -> None:
    found = read_digits()
    assert (len(found), found.pixel_size, found.class_names) == (1797, (8, 8), tuple("0123456789"))
    first = np.asarray(found.read(0, 1))
    assert (first.max(), first[0].tolist()) == (239, [0, 0, 80, 207, 143, 16, 0, 0])
