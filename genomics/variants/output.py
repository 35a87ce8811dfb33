"""Results as a table or as a VCF; both name the model that they come from."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ...core.files import replacing
from ..data.variants import VcfRecord, import_pysam
from .scores import Effects, VariantScorer

_PREFIX = "LONGSCAN_"


@dataclass(frozen=True)
class Provenance:
    """What a result was computed with; ``embedding_window`` where distances of embeddings are part of it."""

    model: str
    revision: str
    window: int
    strand: str
    embedding_window: int | None = None

    @classmethod
    def of(cls, scorer: VariantScorer) -> Provenance:
        """Return that of a scorer."""
        embedding_window = None if scorer.distance == "none" else scorer.embedding_window
        return cls(scorer.model.name, scorer.model.revision, scorer.window, scorer.strand, embedding_window)

    def columns(self) -> dict[str, str]:
        """Return the last columns of a table, name to value."""
        return {name: str(value) for name, value in vars(self).items() if value is not None}


def score_columns(distance: str) -> list[str]:
    """Return the columns of `score_cells`."""
    distances = {"none": [], "cosine": ["cosine_distance"], "l2": ["l2_distance"]}.get(
        distance, ["cosine_distance", "l2_distance"]
    )
    return ["log_likelihood_ratio", "llr_forward", "llr_reverse", *distances]


def score_cells(effects: Effects, distance: str, empty: str = "") -> list[list[str]]:
    """Return one row of text for each variant; ``empty`` stands where nothing was computed."""
    columns = [effects.score, effects.forward, effects.reverse]
    columns += [effects.cosine] if distance in ("cosine", "both") else []
    columns += [effects.l2] if distance in ("l2", "both") else []
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [[empty if math.isnan(value) else f"{value:.7g}" for value in row] for row in rows]


@contextlib.contextmanager
def open_output(path: str | os.PathLike[str]) -> Iterator[Callable[[str], Any]]:
    """Give a function that writes text to a file, which appears when the block ends well; ``.gz`` is bgzip.

    Raises:
        UserError: the file cannot be written. What else goes wrong in the block is left as it is.
    """
    target, inside = Path(path), None

    def write(text: str) -> None:
        try:
            stream.write(text.encode())
        except OSError as error:
            raise _unwritable(target, error) from error

    try:
        with replacing(target) as temporary, _opened(temporary) as stream:
            try:
                yield write
            except OSError as error:
                inside = error
                raise
    except OSError as error:
        if error is inside:
            raise
        raise _unwritable(target, error) from error


def _opened(path: Path) -> Any:
    if path.suffix.lower() in (".gz", ".bgz"):
        return import_pysam().BGZFile(os.fspath(path), "wb")
    return path.open("wb")


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be written ({error.strerror or error}); check folder and space")


class TableWriter:
    """Writes one tab-separated row for each ALT, in the order of the VCF; ``contig`` and ``pos`` as the VCF has them.

    Args:
        write: takes text.
        header: the lines of the VCF's header; a table needs none of them.
        provenance: what the scores were computed with.
        distance: which distances were computed.
    """

    def __init__(
        self, write: Callable[[str], Any], header: Sequence[str], provenance: Provenance, distance: str
    ) -> None:
        self._write, self._distance, self._tail = write, distance, "\t".join(provenance.columns().values())
        columns = ["contig", "pos", "id", "ref", "alt", "status", "method", *score_columns(distance), "n_bases"]
        write("\t".join([*columns, *provenance.columns()]) + "\n")

    def add(self, records: Sequence[VcfRecord], effects: Effects) -> None:
        """Write the rows of all ALTs of ``records``, to which ``effects`` belong in order."""
        cells = score_cells(effects, self._distance)
        lines, i = [], 0
        for record in records:
            for alt in record.alts:
                lines.append(
                    f"{record.chrom}\t{record.pos}\t{record.identifier}\t{record.ref}\t{alt}\t{effects.status[i]}\t"
                    f"{effects.method[i]}\t" + "\t".join(cells[i]) + f"\t{effects.n_bases[i]}\t{self._tail}\n"
                )
                i += 1
        self._write("".join(lines))


class VcfWriter:
    """Writes the records of a VCF as they were, with INFO fields for the scores; results of an earlier run go.

    Arguments as for `TableWriter`.
    """

    def __init__(
        self, write: Callable[[str], Any], header: Sequence[str], provenance: Provenance, distance: str
    ) -> None:
        self._write, self._distance = write, distance
        self._keys = [_PREFIX + name for name in ("LLR", "LLR_FORWARD", "LLR_REVERSE", "COSINE", "L2")]
        meanings = [
            "log p(ALT) - log p(REF), the mean of the strands asked for", "The same on the forward strand",
            "The same on the reverse strand", "Cosine distance of mean features", "L2 distance of mean features",
        ]  # fmt: skip
        wanted = {"none": (), "cosine": (3,), "l2": (4,)}.get(distance, (3, 4))
        self._chosen = [0, 1, 2, *wanted]
        own = [
            *((self._keys[k], "A", "Float", meanings[k]) for k in self._chosen),
            (f"{_PREFIX}METHOD", "A", "String", "masked, unmasked, unmasked_sum or causal"),
            (f"{_PREFIX}STATUS", ".", "String", "For each ALT: scored, or why not"),
            (f"{_PREFIX}N_BASES", "1", "Integer", "Bases of the reference window that are N or beyond the contig"),
        ]
        quoted = provenance.model.replace("\\", "\\\\").replace('"', '\\"')
        settings = {**provenance.columns(), "model": f'"{quoted}"'}
        lines = [line for line in header[:-1] if not line.startswith((f"##INFO=<ID={_PREFIX}", "##longscan=<"))]
        lines += [
            f'##INFO=<ID={key},Number={number},Type={kind},Description="{meaning}">'
            for key, number, kind, meaning in own
        ]
        lines.append(
            f"##longscan=<ID=score-variants,{','.join(f'{name}={value}' for name, value in settings.items())}>"
        )
        write("\n".join([*lines, header[-1]]) + "\n")

    def add(self, records: Sequence[VcfRecord], effects: Effects) -> None:
        """Write the records, to whose ALTs ``effects`` belong in order."""
        cells = score_cells(effects, self._distance, empty=".")
        lines, i = [], 0
        for record in records:
            stop = i + len(record.alts)
            values = []
            if record.alts != (".",):  # without ALT a field for each ALT has no value
                values = [
                    f"{self._keys[k]}={','.join(row[c] for row in cells[i:stop])}" for c, k in enumerate(self._chosen)
                ]
                values.append(f"{_PREFIX}METHOD={','.join(method or '.' for method in effects.method[i:stop])}")
            values.append(f"{_PREFIX}STATUS={','.join(effects.status[i:stop])}")
            values.append(f"{_PREFIX}N_BASES={effects.n_bases[i]}")
            fields = record.text.split("\t")
            kept = [part for part in fields[7].split(";") if part != "." and not part.startswith(_PREFIX)]
            fields[7] = ";".join([*kept, *values])
            lines.append("\t".join(fields) + "\n")
            i = stop
        self._write("".join(lines))
