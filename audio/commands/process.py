"""``longscan audio process``: stream a file through an effect model, block by block."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ...core.cli import Parser
from ...core.command_options import check_output
from ...core.errors import UserError
from ...core.files import require_file
from .options import add_format_arguments, add_model_arguments

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ..loading import AudioModel

_DESCRIPTION = """\
Run a causal effect model over a file as a live effect would: in blocks of --block samples, the state carried.

The output does not depend on --block, but for rounding. Controls are in the units of the training data; the model's
files say which there are, and between which values. Samples beyond full scale become full scale.
INPUT - reads raw float32 samples (little-endian, channels interleaved) from standard input, and --output - writes them
to standard output.
Printed: the time that blocks took (median, 99th percentile, longest), the latency (one block, and its median time), and
the real-time factor (seconds of computing per second of audio; below 1 keeps up).
"""


def process(argv: list[str]) -> int:
    """``longscan audio process``."""
    arguments = _parser().parse_args(argv)
    if arguments.block < 1:
        raise UserError(f"--block {arguments.block}: must be at least 1")
    given = _controls(arguments.control)
    if arguments.output != "-":
        check_output(arguments.output)
    if arguments.input != "-":
        require_file(arguments.input)
    from ..data.streaming import read_blocks, write_blocks
    from ..loading import load_model

    model = load_model(arguments)
    model.needs("process", "init_state", what="an effect model")
    controls = model.card.control_values(given)
    wanted = model.file_format(arguments, resample=False)
    rate, channels = model.card.sample_rate, model.card.channels
    blocks = (
        _raw_blocks(arguments.block, channels)
        if arguments.input == "-"
        else read_blocks(arguments.input, wanted, arguments.block)
    )
    seconds: list[float] = []
    processed = processed_blocks(model, blocks, controls, seconds)
    if arguments.output == "-":
        frames = beyond = 0
        for block in processed:
            sys.stdout.buffer.write(block.astype("<f4").tobytes())
            frames += len(block)
    else:
        frames, beyond = write_blocks(arguments.output, processed, rate, channels=channels, subtype=arguments.subtype)
    print(_report(seconds, arguments.block, frames, rate, beyond), file=sys.stderr if arguments.output == "-" else None)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="longscan audio process", description=_DESCRIPTION)
    parser.add_argument("input", metavar="INPUT", help="audio file, or - for standard input")
    add_model_arguments(parser, device=False)
    parser.add_argument(
        "--control", action="append", default=[], metavar="NAME=VALUE", help="a control of the effect; once for each"
    )
    parser.add_argument("--block", type=int, default=64, help="samples of a block [%(default)s]")
    parser.add_argument("--subtype", help="encoding of the samples: PCM_16 (default), PCM_24, FLOAT")
    add_format_arguments(parser, resample=False)
    parser.add_argument("--output", required=True, help="audio file to write, or - for standard output")
    return parser


def _controls(words: list[str]) -> dict[str, float]:
    """Return the controls by name of words like ``ratio=4``."""
    result: dict[str, float] = {}
    for word in words:
        name, _, text = word.partition("=")
        try:
            value = float(text)
        except ValueError:
            raise UserError(f"--control {word}: is not NAME=NUMBER; write for example --control ratio=4") from None
        if name in result:
            raise UserError(f"--control {name}: is given twice; leave one away")
        result[name] = value
    return result


def processed_blocks(
    model: AudioModel, blocks: Iterable[np.ndarray], controls: list[float], seconds: list[float]
) -> Iterator[np.ndarray]:
    """Yield the processed blocks, float32 (frames, channels), and note the time that each took in ``seconds``."""
    import torch

    values: Tensor | None = torch.tensor([controls], dtype=torch.float32) if controls else None
    with torch.inference_mode():
        # The first call of all compiles or warms caches, which is no part of a stream's latency.
        quiet = torch.zeros(1, 1, model.card.channels)
        model.model.process(quiet, model.model.init_state(1), values)
        state = model.model.init_state(1)
        for block in blocks:
            begun = time.perf_counter()
            result, state = model.model.process(torch.from_numpy(block)[None], state, values)
            samples = result[0].float().cpu().numpy()
            seconds.append(time.perf_counter() - begun)
            yield samples


def _raw_blocks(frames: int, channels: int) -> Iterator[np.ndarray]:
    import numpy as np

    from ..data.files import check_finite

    done, width = 0, 4 * channels
    while data := sys.stdin.buffer.read(frames * width):
        if len(data) % width:
            raise UserError(f"standard input: ends within a sample ({len(data) % width} bytes too many); send float32")
        block = np.frombuffer(data, dtype="<f4").astype(np.float32).reshape(-1, channels)
        check_finite(block, "standard input", done)
        done += len(block)
        yield block


def _report(seconds: list[float], block: int, frames: int, rate: int, beyond: int) -> str:
    import numpy as np

    if not seconds:
        raise UserError("standard input: held no sample; send float32 samples")
    times = np.array(seconds) * 1e3
    median, high = np.percentile(times, [50, 99])
    lines = [
        f"{frames} samples ({frames / rate:.2f} s at {rate} Hz) in {len(seconds)} blocks of {block}",
        f"time of a block: median {median:.3f} ms, 99th percentile {high:.3f} ms, longest {times.max():.3f} ms",
        f"latency: {block / rate * 1e3:.3f} ms of samples + {median:.3f} ms",
        f"real-time factor: {times.sum() / 1e3 / (frames / rate):.4f}",
    ]
    if beyond:
        lines.append(
            f"{beyond} samples lay beyond full scale and were cut off; turn the input down, or --subtype FLOAT"
        )
    return "\n".join(lines)
