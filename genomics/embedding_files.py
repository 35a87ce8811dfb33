"""Files of embeddings: Parquet and NPZ, written as the results come and never held as a whole."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.files import replacing
from .data.files import require_file
from .data.items import GenomeItem

_ROW_GROUP = 4096  # rows that are held before they are written
FORMATS = (".parquet", ".npz")


def check_format(path: str | os.PathLike[str]) -> Path:
    """The path of an output file, whose ending says the format.

    Raises:
        UserError: an ending other than .parquet and .npz.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise UserError(f"--output {path}: the ending does not say the format; name it .parquet or .npz")
    return Path(path)


def write_pooled(
    path: Path, items: Sequence[GenomeItem], vectors: Iterable[np.ndarray], d_model: int, metadata: Mapping[str, Any]
) -> None:
    """Write one row for each item: name, contig, start, end (0-based, half-open), strand, n_bases (positions that are
    not A, C, G or T) and embedding, (d_model,) float32.

    In NPZ the columns are arrays ``names``, ``contigs``, ``starts``, ``ends``, ``strands``, ``n_bases`` and
    ``embeddings`` (items, d_model), beside ``metadata``, a text with JSON.
    """
    with replacing(path) as temporary:
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(temporary, "w") as archive:
                _write_rows(archive, "embeddings", (len(items), d_model), vectors)
                _write_columns(archive, items, metadata)
            return
        rows = zip(items, vectors, strict=True)
        with _parquet(temporary, _item_fields(), d_model, metadata) as write:
            while group := [row for row, _ in zip(rows, range(_ROW_GROUP), strict=False)]:
                chosen = [item for item, _ in group]
                write(_item_columns(chosen), np.stack([vector for _, vector in group]))


def write_tokens(
    path: Path,
    items: Sequence[GenomeItem],
    features: Iterable[Iterator[np.ndarray]],
    d_model: int,
    metadata: Mapping[str, Any],
) -> None:
    """Write one row for each base: name, contig, position (0-based, in the contig), strand, and embedding.

    In NPZ each item has an array ``embeddings_<number>`` (bases, d_model) float32, in the item's own orientation,
    beside the columns and the metadata of `write_pooled`.
    """
    with replacing(path) as temporary:
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(temporary, "w") as archive:
                for number, (item, pieces) in enumerate(zip(items, features, strict=True)):
                    _write_rows(archive, f"embeddings_{number}", (item.length, d_model), pieces)
                _write_columns(archive, items, metadata)
            return
        fields = {"name": "string", "contig": "string", "position": "int64", "strand": "string"}
        with _parquet(temporary, fields, d_model, metadata) as write:
            for item, pieces in zip(items, features, strict=True):
                begin = 0
                for piece in pieces:
                    for start in range(0, len(piece), _ROW_GROUP):
                        part = piece[start : start + _ROW_GROUP]
                        count = len(part)
                        columns = {
                            "name": [item.name] * count,
                            "contig": [item.contig] * count,
                            "position": item.positions(begin, begin + count),
                            "strand": [item.strand] * count,
                        }
                        write(columns, part)
                        begin += count


def read_pooled(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, str]]:
    """Read what `write_pooled` wrote.

    Returns:
        The columns by their Parquet names, the embeddings (items, d_model) float32, and the metadata.

    Raises:
        UserError: another ending, no such file, or a file that is not one of these.
    """
    file = require_file(path)
    if file.suffix.lower() == ".npz":
        try:
            with np.load(file) as arrays:
                columns = {name: arrays[plural] for name, plural in _PLURALS.items()}
                return columns, arrays["embeddings"], json.loads(str(arrays["metadata"]))
        except (KeyError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{file}: holds no pooled embeddings of `embed` ({error}); write them anew") from error
    if file.suffix.lower() != ".parquet":
        raise UserError(f"{file}: is neither .parquet nor .npz; give a file that `embed` wrote")
    pyarrow, parquet = _import_pyarrow()
    try:
        table = parquet.read_table(file)
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{file}: is no Parquet file ({error}); write it anew") from error
    missing = [name for name in (*_PLURALS, "embedding") if name not in table.column_names]
    if missing:
        raise UserError(f"{file}: has no column {missing[0]!r}; give pooled embeddings that `embed` wrote")
    columns = {name: np.array(table.column(name).to_pylist()) for name in table.column_names if name != "embedding"}
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in table.column("embedding").chunks]
    embeddings = np.concatenate(chunks).reshape(len(table), -1)
    return columns, embeddings, {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}


#: Parquet column to the name of its array in NPZ.
_PLURALS = {
    "name": "names", "contig": "contigs", "start": "starts", "end": "ends", "strand": "strands", "n_bases": "n_bases",
}  # fmt: skip


def _item_fields() -> dict[str, str]:
    return {name: "int64" if name in ("start", "end", "n_bases") else "string" for name in _PLURALS}


def _item_columns(items: Sequence[GenomeItem]) -> dict[str, list[Any]]:
    return {name: [getattr(item, name) for item in items] for name in _PLURALS}


@contextlib.contextmanager
def _parquet(path: Path, fields: Mapping[str, str], d_model: int, metadata: Mapping[str, Any]) -> Iterator[Any]:
    """Give a function that writes columns and their embeddings (rows, d_model) as one row group."""
    pyarrow, parquet = _import_pyarrow()
    types = {"string": pyarrow.string(), "int64": pyarrow.int64()}
    schema = pyarrow.schema(
        [
            *((name, types[kind]) for name, kind in fields.items()),
            ("embedding", pyarrow.list_(pyarrow.float32(), d_model)),
        ],
        metadata={key: str(value) for key, value in metadata.items()},
    )
    with parquet.ParquetWriter(path, schema, use_dictionary=[n for n, kind in fields.items() if kind == "string"]) as w:

        def write(columns: Mapping[str, Any], embeddings: np.ndarray) -> None:
            values = pyarrow.array(np.ascontiguousarray(embeddings, dtype=np.float32).reshape(-1))
            arrays = [pyarrow.array(columns[name], types[kind]) for name, kind in fields.items()]
            arrays.append(pyarrow.FixedSizeListArray.from_arrays(values, d_model))
            w.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))

        yield write


def _write_rows(archive: zipfile.ZipFile, name: str, shape: tuple[int, int], pieces: Iterable[np.ndarray]) -> None:
    """Add an array (rows, channels) float32 whose rows come in pieces (or one by one)."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for piece in pieces:
            stream.write(np.ascontiguousarray(piece, dtype="<f4").tobytes())


def _write_columns(archive: zipfile.ZipFile, items: Sequence[GenomeItem], metadata: Mapping[str, Any]) -> None:
    columns = {_PLURALS[name]: np.array(values) for name, values in _item_columns(items).items()}
    columns["metadata"] = np.array(json.dumps({key: str(value) for key, value in metadata.items()}))
    for name, array in columns.items():
        with archive.open(f"{name}.npy", "w") as stream:
            np.lib.format.write_array(stream, array, allow_pickle=False)


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("Parquet needs pyarrow; install it with `pip install longscan[genomics]`") from error
    return pyarrow, pyarrow.parquet


__all__ = ["check_format", "read_pooled", "write_pooled", "write_tokens"]
