"""Models as ONNX files, which other programs run without PyTorch and without our operators."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .errors import UserError
from .files import replacing
from .plain_operators import decompositions

_NEEDED = "ONNX files need onnx, onnxscript and onnxruntime: pip install onnx onnxscript onnxruntime"


def export_onnx(
    model: nn.Module,
    example: Tensor,
    path: str | Path,
    *,
    input_name: str = "input",
    output_name: str = "output",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write ``model`` in float32 as ONNX; the first dimension of its input and output may be of any size.

    Scans become chunks of PyTorch's own operations (:mod:`longscan.core.plain_operators`), the other dimensions are
    those of ``example``.

    Args:
        model: takes one tensor and gives one.
        example: an input with a batch of at least 2.
        path: of the file.
        input_name, output_name: of the tensors in it.
        metadata: texts that are kept in the file by name.

    Raises:
        UserError: missing packages, or a model that has no form in ONNX.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(_NEEDED) from error
    model = copy.deepcopy(model).to("cpu", torch.float32).eval().requires_grad_(False)
    example = example.detach().to("cpu", torch.float32)
    shapes = ({0: torch.export.Dim("batch")},)
    try:
        # The exporter tells its steps, and warns of what it uses itself.
        with torch.no_grad(), redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            model(example)  # scan orders and the like are remembered, which must not be tracers
            program = torch.export.export(model, (example,), dynamic_shapes=shapes, strict=False)
            program = program.run_decompositions(decompositions())
            _check_operators(program, type(model).__name__)
            written: Any = torch.onnx.export(
                program,
                (example,),
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=[input_name],
                output_names=[output_name],
                verbose=False,
                optimize=False,  # slow for deep models, and onnxruntime does it on loading
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{type(model).__name__} cannot be written as ONNX: {reason}") from error
    for key, value in (metadata or {}).items():
        written.model.metadata_props[key] = value
    with replacing(path) as temporary:
        written.save(str(temporary))
    return Path(path)


def _check_operators(program: Any, name: str) -> None:
    """Raise for operators of ours that have no plain form."""
    left = sorted({str(node.target) for node in program.graph.nodes if str(node.target).startswith("longscan.")})
    if left:
        raise UserError(f"{name} cannot be written as ONNX: {', '.join(left)} has no form in ONNX's operations")


def run_onnx(path: str | Path, batch: Tensor, threads: int | None = None) -> np.ndarray:
    """Run a file on one input in onnxruntime, on the CPU, and return its first output.

    Raises:
        UserError: without onnxruntime.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(_NEEDED) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; it warns of each operation that it does not fold
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {session.get_inputs()[0].name: batch.cpu().float().numpy()})[0]
    return result


def onnx_difference(path: str | Path, model: nn.Module, batch: Tensor) -> float:
    """Return the largest difference between a file's output and the model's, relative to the model's largest entry."""
    with torch.no_grad():
        want = model(batch).float().cpu().numpy()
    return float(np.abs(run_onnx(path, batch) - want).max() / max(np.abs(want).max(), 1e-30))
