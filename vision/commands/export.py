"""``longscan vision export``: a model of images as ONNX."""

from __future__ import annotations

import json

from ...core.cli import Parser
from ...core.command_options import check_output
from ...core.errors import UserError
from .options import add_model_arguments

_DESCRIPTION = """\
Write a model as ONNX, in float32, for images of one size and batches of any: the tensors are called images (batch,
channels, height, width) and logits (batch, classes). The file holds PyTorch's own operations alone, no scan kernel:
each scan is done in chunks. Size, normalisation and class names are kept in it as metadata.

What the file gives is compared with the model in onnxruntime, at another batch size. Needs onnx, onnxscript and
onnxruntime. For another resolution, write another file with --img-size.
"""
#: Largest accepted difference, relative to the largest logit.
_TOLERANCE = 1e-3


def export(argv: list[str]) -> int:
    """``longscan vision export``."""
    parser = Parser(prog="longscan vision export", description=_DESCRIPTION)
    add_model_arguments(parser)
    parser.add_argument("--output", required=True, help="file to write: .onnx")
    parser.add_argument("--no-check", action="store_true", help="do not run the file in onnxruntime")
    arguments = parser.parse_args(argv)
    output = check_output(arguments.output)
    if output.suffix.lower() != ".onnx":
        raise UserError(f"--output {arguments.output}: name it .onnx")
    import torch

    from ...core.onnx_export import export_onnx, onnx_difference
    from ..loading import load_model

    loaded = load_model(arguments)
    card, model = loaded.card, loaded.model.cpu()
    config = getattr(model, "config", None)
    if hasattr(config, "vocab_size") or hasattr(config, "num_frames"):
        raise UserError(f"{arguments.model}: {type(model).__name__} reads no single images; choose another --model")
    shape = (card.channels, *card.img_size)
    generator = torch.Generator().manual_seed(0)
    metadata = {"longscan": json.dumps({"model": arguments.model, **card.to_dict()})}
    export_onnx(
        model,
        torch.randn(2, *shape, generator=generator),
        output,
        input_name="images",
        output_name="logits",
        metadata=metadata,
    )
    size = output.stat().st_size / 1e6
    print(f"{type(model).__name__}, images of {shape[1]} × {shape[2]}, {size:.1f} MB -> {output}")
    if arguments.no_check:
        return 0
    difference = onnx_difference(output, model, torch.randn(3, *shape, generator=generator))
    if not difference <= _TOLERANCE:
        raise UserError(
            f"{output}: its logits differ from the model's by {difference:.1e} of the largest one; do not use it, and "
            "report the versions of torch, onnxscript and onnxruntime"
        )
    print(f"onnxruntime gives the model's logits for a batch of 3, to {difference:.0e} of the largest one")
    return 0
