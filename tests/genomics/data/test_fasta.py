"""Reading FASTA: coordinates, compression, caching, processes, and everything that can be wrong with a file."""

from __future__ import annotations

import gzip
import io
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from longscan.core.errors import UserError
from longscan.genomics.data import fasta as fasta_module
from longscan.genomics.data.fasta import FastaReader, open_fasta
from longscan.genomics.data.fasta_scan import scan_fasta

YEAST = "NC_001133.9"


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def bgzip(path: Path, content: bytes) -> Path:
    from Bio import bgzf

    with bgzf.open(str(path), "wb") as stream:
        stream.write(content)
    return path


@pytest.fixture
def readers(tmp_path: Path, yeast_bytes: bytes) -> dict[str, FastaReader]:
    second = b">short other words\nACGTNacgtn\nRYK\n"
    content = yeast_bytes + second
    return {
        "plain": open_fasta(write(tmp_path / "plain.fa", content)),
        "gzip": open_fasta(write(tmp_path / "gzip.fa.gz", gzip.compress(content))),
        "bgzip": open_fasta(bgzip(tmp_path / "bgzip.fa.gz", content)),
        "crlf": open_fasta(write(tmp_path / "crlf.fa", content.replace(b"\n", b"\r\n"))),
        "one line": open_fasta(write(tmp_path / "line.fa", yeast_bytes.replace(b"\n", b"").replace(
            b"complete sequence", b"complete sequence\n") + b"\n" + second)),
    }  # fmt: skip


def test_every_kind_of_file_agrees_with_a_slice_of_the_text(readers: dict[str, FastaReader], yeast_text: str) -> None:
    generator = np.random.default_rng(0)
    starts = generator.integers(0, len(yeast_text), 60)
    ends = np.minimum(starts + generator.integers(1, 70_000, 60), len(yeast_text))
    windows = [*zip(starts.tolist(), ends.tolist(), strict=True), (0, 1), (59, 61), (60, 120), (0, len(yeast_text))]
    windows += [(len(yeast_text) - 1, len(yeast_text)), (5, 5)]
    for kind, reader in readers.items():
        assert reader.names == [YEAST, "short"], kind
        assert reader.lengths == {YEAST: 230_218, "short": 13}, kind
        for start, end in windows:
            assert reader.fetch(YEAST, start, end) == yeast_text[start:end], (kind, start, end)
        assert reader.fetch("short", 3, 12) == "TNacgtnRY", kind


def test_windows_beyond_the_ends_are_padded_only_on_demand(readers: dict[str, FastaReader]) -> None:
    for reader in readers.values():
        assert reader.fetch("short", -3, 15, pad=True) == "NNNACGTNacgtnRYKNN"
        assert reader.fetch("short", -5, -2, pad=True) == "NNN"
        assert reader.fetch("short", 20, 24, pad=True) == "NNNN"
        assert reader.fetch("short", 0, 13, pad=True) == "ACGTNacgtnRYK"
        for start, end in ((-1, 5), (5, 14), (20, 24)):
            with pytest.raises(UserError, match=f"short:{start}-{end} reaches beyond the record, which has 13 bases"):
                reader.fetch("short", start, end)
        with pytest.raises(UserError, match="short:5-4: the start lies behind the end"):
            reader.fetch("short", 5, 4)
        with pytest.raises(UserError, match="no record named 'chr1'"):
            reader.fetch("chr1", 0, 1)


def test_the_index_is_that_of_pyfaidx(tmp_path: Path, yeast_bytes: bytes) -> None:
    import pyfaidx

    content = yeast_bytes + b">two\nACGT\n>three x\nACG\nAC\n"
    ours, theirs = write(tmp_path / "ours.fa", content), write(tmp_path / "theirs.fa", content)
    open_fasta(ours)
    pyfaidx.Faidx(str(theirs))
    assert Path(f"{ours}.fai").read_text() == Path(f"{theirs}.fai").read_text()
    bgzip(tmp_path / "ours.fa.gz", content)
    bgzip(tmp_path / "theirs.fa.gz", content)
    open_fasta(tmp_path / "ours.fa.gz")
    pyfaidx.Faidx(str(tmp_path / "theirs.fa.gz"))
    assert (tmp_path / "ours.fa.gz.gzi").read_bytes() == (tmp_path / "theirs.fa.gz.gzi").read_bytes()


@pytest.mark.parametrize("chunk_size", [1, 2, 7, 61, 62, 1000])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_the_scan_does_not_depend_on_its_chunks(yeast_bytes: bytes, chunk_size: int, line_end: bytes) -> None:
    content = (yeast_bytes[:5000] + b"\n>b c\nAC\nG\n\n\n>d\nACGT").replace(b"\n", line_end)
    whole = scan_fasta(io.BytesIO(content), Path("x"))
    assert [record.name for record in whole] == [YEAST, "b", "d"]
    assert [record.length for record in whole][1:] == [3, 4]
    assert scan_fasta(io.BytesIO(content), Path("x"), chunk_size=chunk_size) == whole


def test_the_file_is_scanned_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    scans: list[Path] = []
    original = fasta_module.scan_fasta

    def counting(stream, source, **options):  # type: ignore[no-untyped-def]
        scans.append(source)
        return original(stream, source, **options)

    monkeypatch.setattr(fasta_module, "scan_fasta", counting)
    path = write(tmp_path / "a.fa", ">a\nACGT\n")
    assert open_fasta(path).lengths == {"a": 4}
    assert open_fasta(path).fetch("a", 1, 3) == "CG"
    assert len(scans) == 1
    write(path, ">a\nACGTACG\n")
    assert open_fasta(path).lengths == {"a": 7}
    assert len(scans) == 2
    write(path, ">a\nTTTTTTT\n")  # the same size, another time
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1_000_000))
    assert open_fasta(path).fetch("a", 0, 7) == "TTTTTTT"
    assert len(scans) == 3
    write(Path(f"{path}.fai"), "a\t99\t3\t99\t100\n")  # somebody else's index is not trusted
    assert open_fasta(path).lengths == {"a": 7}
    assert len(scans) == 4


def test_the_index_goes_to_the_cache_where_the_folder_is_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, yeast_bytes: bytes, yeast_text: str
) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    write(folder / "a.fa", yeast_bytes)
    bgzip(folder / "b.fa.gz", yeast_bytes)
    allowed = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: (Path(path) != folder or mode != os.W_OK) and allowed(path, mode)
    )
    for name in ("a.fa", "b.fa.gz"):
        assert open_fasta(folder / name).fetch(YEAST, 1000, 1100) == yeast_text[1000:1100]
    assert sorted(path.name for path in folder.iterdir()) == ["a.fa", "b.fa.gz"]
    assert len(list(cache.glob("*.fai"))) == 2
    assert len(list(cache.glob("*.gzi"))) == 1


def test_gzip_is_decompressed_once_into_the_cache(tmp_path: Path, cache: Path, yeast_bytes: bytes) -> None:
    path = write(tmp_path / "a.fna.gz", gzip.compress(yeast_bytes))
    open_fasta(path)
    (copy,) = cache.glob("*.fa")
    assert copy.read_bytes() == yeast_bytes
    stamp = copy.stat().st_mtime_ns
    open_fasta(path)
    assert copy.stat().st_mtime_ns == stamp
    assert [file.name for file in tmp_path.iterdir()] == ["a.fna.gz"]
    copy.unlink()
    assert open_fasta(path).fetch(YEAST, 0, 4) == "ccac"


def _fetch_many(reader: FastaReader, start: int, queue) -> None:  # type: ignore[no-untyped-def]
    queue.put([reader.fetch(YEAST, i, i + 50) for i in range(start, start + 20_000, 97)])


def test_forked_processes_do_not_disturb_each_other(readers: dict[str, FastaReader], yeast_text: str) -> None:
    context = multiprocessing.get_context("fork")
    for reader in (readers["plain"], readers["bgzip"]):
        reader.fetch(YEAST, 0, 10)  # opened before the fork
        queues = [context.SimpleQueue() for _ in range(2)]
        starts = (0, 100_000)
        workers = [
            context.Process(target=_fetch_many, args=(reader, s, q)) for s, q in zip(starts, queues, strict=True)
        ]
        for worker in workers:
            worker.start()
        for start, queue, worker in zip(starts, queues, workers, strict=True):
            assert queue.get() == [yeast_text[i : i + 50] for i in range(start, start + 20_000, 97)]
            worker.join()


def test_every_process_opens_the_file_itself(readers: dict[str, FastaReader], monkeypatch: pytest.MonkeyPatch) -> None:
    reader = readers["plain"]
    handle = reader._open()
    assert reader._open() is handle
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert reader._open() is not handle


def test_a_reader_can_be_pickled_while_open(readers: dict[str, FastaReader], yeast_text: str) -> None:
    reader = readers["bgzip"]
    reader.fetch(YEAST, 0, 10)
    assert pickle.loads(pickle.dumps(reader)).fetch(YEAST, 70_000, 70_010) == yeast_text[70_000:70_010]


GOOD = ">a\nACGT\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "bad.fa: the file is empty"),
        ("LOCUS x\n", "bad.fa: not FASTA: the first character is 'L', expected '>'"),
        ("\n>a\nAC\n", "not FASTA"),
        (">a\nACGT\nACE!\n", "record 'a', line 3: illegal character 'E'"),
        (">a\nACGT\n>b\nAC GT\n", "record 'b', line 4: illegal character ' '"),
        (">a\nAC\rGT\n", "record 'a', line 2: illegal character '\\\\r'"),
        (">a\nACGT\n>b\nAC\n>a\nAC\n", r"line 5: a second record named 'a' \(the first is on line 1\)"),
        (">a\n>b\nAC\n", "line 1: record 'a' has no sequence"),
        (">a\nAC\n>b", "line 3: record 'b' has no sequence"),
        (">a\nAC\n>b\n\n", "line 3: record 'b' has no sequence"),
        (">\nAC\n", "line 1: a record without a name"),
        (">a\nACGT\nAC\nACGT\n", r"record 'a', line 3: a line that differs .*\(4 bases\).*reformat"),
        (">a\nACGT\nACGTA\nACGT\n", "record 'a', line 3: a line of 5 bases that differs .*reformat"),
        (">a\nACGT\nACGTA", "record 'a', line 3: a line of 5 bases"),
        (">a\nACGT\n\nAC\n", "record 'a', line 3: a line that differs"),
        (">a\n\nACGT\n", "record 'a', line 3: a line of 4 bases"),
        (">a\nACGT\r\nACGT\nACGT\n", "record 'a', line 3: a line that differs"),
        (b">\xff\nAC\n", "line 1: the header is not UTF-8"),
    ],
)
def test_bad_files_are_named_with_record_and_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = write(tmp_path / "bad.fa", content)
    with pytest.raises(UserError, match=message) as caught:
        open_fasta(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path(f"{path}.fai").exists()
    if content:
        packed = write(tmp_path / "bad.fa.gz", gzip.compress(path.read_bytes()))
        with pytest.raises(UserError, match=message.replace("bad.fa:", "bad.fa.gz:")):
            open_fasta(packed)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.fa", "bad.fa.gz"]


def test_bad_compression_is_named(tmp_path: Path, cache: Path, yeast_bytes: bytes) -> None:
    packed = gzip.compress(yeast_bytes)
    with pytest.raises(UserError, match=r"cut.fa.gz: the gzip file is truncated"):
        open_fasta(write(tmp_path / "cut.fa.gz", packed[:-2000]))
    damaged = packed[:5000] + bytes(50) + packed[5050:]
    with pytest.raises(UserError, match=r"hurt.fa.gz: the gzip file is corrupt"):
        open_fasta(write(tmp_path / "hurt.fa.gz", damaged))
    whole = bgzip(tmp_path / "b.fa.gz", yeast_bytes).read_bytes()
    with pytest.raises(UserError, match=r"c.fa.gz: the bgzip file is truncated"):
        open_fasta(write(tmp_path / "c.fa.gz", whole[:-28]))
    with pytest.raises(UserError, match="is named as gzip but is not compressed"):
        open_fasta(write(tmp_path / "plain.fa.gz", yeast_bytes))
    assert list(cache.iterdir()) == []


def test_paths_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"none\.fa: no such file"):
        open_fasta(tmp_path / "none.fa")
    with pytest.raises(UserError, match="is a folder"):
        open_fasta(tmp_path)
    monkeypatch.setenv("LONGSCAN_CACHE", str(write(tmp_path / "file", "x")))
    with pytest.raises(UserError, match=r"cannot make this cache folder .*LONGSCAN_CACHE"):
        open_fasta(write(tmp_path / "a.fa", GOOD))


def test_a_file_that_shrinks_while_open_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.fa", ">a\n" + "ACGT" * 5000 + "\n")
    reader = open_fasta(path)
    write(path, ">a\nACGT\n")
    with pytest.raises(UserError, match="the file changed while it was in use"):
        reader.fetch("a", 10, 20_000)
