"""``longscan audio likelihood``: bits per sample of files, as TSV."""

from __future__ import annotations

import math
from pathlib import Path

from ...core.cli import Parser
from ...core.command_options import check_output, write_table
from ...core.errors import UserError
from .options import add_format_arguments, add_model_arguments

_DESCRIPTION = """\
Measure how well an autoregressive model of codes predicts recordings.

Each sample counts, given those before it in its file; a file of any length is read in pieces with the state carried.
The table has for each file the number of samples, the log-likelihood in nats, and bits per sample; the last line that
is printed has the mean over all samples of all files. Compare only models with the same quantisation.
"""


def likelihood(argv: list[str]) -> int:
    """``longscan audio likelihood``."""
    parser = Parser(prog="longscan audio likelihood", description=_DESCRIPTION)
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio files, or folders of them")
    add_model_arguments(parser)
    add_format_arguments(parser)
    parser.add_argument("--block", type=int, default=1 << 15, help="samples read at a time [%(default)s]")
    parser.add_argument("--output", required=True, help="TSV file to write")
    arguments = parser.parse_args(argv)
    if arguments.block < 1:
        raise UserError(f"--block {arguments.block}: must be at least 1")
    output = check_output(arguments.output)
    from tqdm import tqdm

    from ..data.files import read_audio
    from ..generation import code_log_likelihood
    from ..loading import load_model
    from .inputs import list_inputs

    names, paths = list_inputs(arguments.files)
    model = load_model(arguments)
    model.check_generative("prefill", "init_state")
    wanted, quantizer = model.file_format(arguments), model.quantizer
    rows, nats, samples = [], 0.0, 0
    for name, path in tqdm(list(zip(names, paths, strict=True)), unit="file", disable=None, desc="likelihood"):
        codes = quantizer.encode(read_audio(Path(path), wanted)[0][:, 0])
        total = code_log_likelihood(model.model, codes, zero=quantizer.zero, device=model.device, block=arguments.block)
        rows.append([name, str(len(codes)), f"{total:.4f}", f"{-total / len(codes) / math.log(2):.6f}"])
        nats, samples = nats + total, samples + len(codes)
    write_table(output, ["name", "samples", "log_likelihood", "bits_per_sample"], rows)
    print(f"{len(rows)} file(s), {samples} samples: {-nats / samples / math.log(2):.4f} bits per sample -> {output}")
    return 0
