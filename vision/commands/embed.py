"""``longscan vision embed``: features of images, as Parquet or NPZ."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.cli import Parser
from ...core.command_options import check_output
from ...core.errors import UserError
from .options import add_model_arguments, check_batch_size

if TYPE_CHECKING:
    import numpy as np

    from ..data.images import Images
    from ..loading import VisionModel

_DESCRIPTION = """\
Write the features of images: what the model's classifier would see, one vector for each image.

Inputs are image files and folders of them, at any depth; images are prepared as in the model's evaluation.
.parquet: the columns name and embedding, written as the results come. .npz: the arrays names and embeddings (images,
width), float32, and metadata, a text with JSON.
"""
_ROW_GROUP = 4096  # rows that are held before they are written


def embed(argv: list[str]) -> int:
    """``longscan vision embed``."""
    arguments = _parser().parse_args(argv)
    check_batch_size(arguments)
    output = check_output(arguments.output)
    if output.suffix.lower() not in (".parquet", ".npz"):
        raise UserError(f"--output {arguments.output}: the ending does not say the format; name it .parquet or .npz")
    from ..loading import load_model
    from .inputs import list_inputs

    images = list_inputs(arguments.files)
    model = load_model(arguments)
    for method in ("forward_features", "forward_head"):
        if not hasattr(model.model, method):
            raise UserError(f"{arguments.model}: {type(model.model).__name__} has no features; choose another --model")
    if output.suffix.lower() == ".parquet":
        for name in images.names:
            if any("\ud800" <= letter <= "\udfff" for letter in name):  # bytes that are no UTF-8, as Python keeps them
                raise UserError(f"the name {name!r} is no UTF-8, which Parquet needs; rename the file, or write .npz")
    try:
        width = _write(arguments, output, model, images)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{output}: cannot write it ({reason}); free some space or choose another folder") from error
    print(f"{len(images)} image(s), {width} features each -> {output}")
    return 0


def _parser() -> Parser:
    parser = Parser(prog="longscan vision embed", description=_DESCRIPTION)
    parser.add_argument("files", nargs="+", metavar="FILE", help="image files, and folders of them")
    add_model_arguments(parser)
    parser.add_argument("--batch-size", type=int, default=32, help="images per forward pass [%(default)s]")
    parser.add_argument("--output", required=True, help="file to write: .parquet or .npz")
    return parser


def _write(arguments: argparse.Namespace, output: Path, model: VisionModel, images: Images) -> int:
    import numpy as np

    from ...core.files import replacing

    metadata = {"model": arguments.model, "img_size": list(model.card.img_size)}
    groups = _features(arguments, model, images)
    with replacing(output) as temporary:
        if output.suffix.lower() == ".npz":
            vectors = np.concatenate([found for _, found in groups])
            names = np.array([str(name) for name in images.names])
            with open(temporary, "wb") as stream:  # (to a name, savez would append a small .npz to a large .NPZ)
                np.savez(stream, names=names, embeddings=vectors, metadata=np.array(json.dumps(metadata)))
            return int(vectors.shape[1])
        import pyarrow as pa
        import pyarrow.parquet as pq

        writer, width = None, 0
        try:
            for rows, found in groups:
                width = found.shape[1]
                kind = pa.list_(pa.float32(), width)
                schema = pa.schema({"name": pa.string(), "embedding": kind}, {"longscan": json.dumps(metadata)})
                writer = writer or pq.ParquetWriter(temporary, schema)
                vectors = pa.FixedSizeListArray.from_arrays(pa.array(found.reshape(-1)), width)
                names = pa.array([str(images.names[row]) for row in rows], pa.string())
                writer.write_table(pa.table([names, vectors], schema=schema))
        finally:
            if writer is not None:
                writer.close()
        return width


def _features(
    arguments: argparse.Namespace, model: VisionModel, images: Images
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yield groups of rows and their features (rows, width) float32."""
    import numpy as np
    from tqdm import tqdm

    held: list[np.ndarray] = []
    numbers: list[int] = []
    with tqdm(total=len(images), unit="image", disable=None, desc="embed") as bar:
        for rows, batch in model.batches(images, arguments.batch_size):
            held.append(model.features(batch))
            numbers += rows
            bar.update(len(rows))
            if len(numbers) >= _ROW_GROUP:
                yield numbers, np.concatenate(held)
                held, numbers = [], []
    if numbers:
        yield numbers, np.concatenate(held)
