"""``longscan audio generate``: new audio, prompted by a file or not, as WAV."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.cli import Parser
from ...core.command_options import add_seed_argument, check_place, write_table
from ...core.errors import UserError
from .options import add_format_arguments, add_model_arguments

if TYPE_CHECKING:
    import numpy as np

    from ..loading import AudioModel

_DESCRIPTION = """\
Draw audio from an autoregressive model of codes (SaShiMi), or from a diffusion model (DiffWave).

A prompt is a file at the model's rate, which each result begins with; it may be longer than the windows that the model
was trained on. What is drawn depends on --seed and the number of the result; not on --batch-size, but for rounding.
--output is an audio file (.wav, .flac), or with --number a folder for 0001.wav, 0002.wav … and samples.tsv, which has
the natural logarithm of the model's probability of each result's new samples, before temperature and truncation, and
the same as bits per sample.
"""


def generate(argv: list[str]) -> int:
    """``longscan audio generate``."""
    arguments = _parser().parse_args(argv)
    _check(arguments)
    files = _files(arguments)
    from ..loading import load_model

    model = load_model(arguments)
    frames = round(arguments.seconds * model.card.model_rate) if arguments.frames is None else arguments.frames
    if frames < 1:
        raise UserError(f"--seconds {arguments.seconds:g}: gives no sample at {model.card.model_rate:g} Hz; raise it")
    begun = time.perf_counter()
    if callable(getattr(model.model, "sample", None)):
        rows = _diffuse(arguments, model, frames, files)
    else:
        rows = _draw(arguments, model, frames, files)
    taken = time.perf_counter() - begun
    for row in rows:
        print("  ".join(row))
    if len(files) > 1:
        table = files[0].parent / "samples.tsv"
        write_table(table, ["file", "samples", "log_likelihood", "bits_per_sample"], rows)
    rate = len(files) * frames / taken
    factor = taken * model.card.model_rate / (len(files) * frames)
    print(
        f"{len(files)} x {frames} samples in {taken:.2f} s: {rate:,.0f} samples per second, real-time factor "
        f"{factor:.3g} at {model.card.model_rate:g} Hz, all streams together -> {arguments.output}"
    )
    return 0


def _parser() -> Parser:
    parser = Parser(prog="longscan audio generate", description=_DESCRIPTION)
    add_model_arguments(parser)
    what = parser.add_argument_group("what")
    what.add_argument("--seconds", type=float, default=1.0, help="of new audio [%(default)s]")
    what.add_argument("--frames", type=int, help="the same in samples")
    what.add_argument("--number", type=int, default=1, help="results [%(default)s]")
    what.add_argument("--prompt", metavar="FILE", help="begin with this recording")
    what.add_argument("--omit-prompt", action="store_true", help="write the new samples alone")
    what.add_argument("--batch-size", type=int, default=16, help="results drawn together [%(default)s]")
    how = parser.add_argument_group("sampling")
    how.add_argument("--temperature", type=float, default=1.0, help="divides the logits [%(default)s]")
    how.add_argument("--top-k", type=int, help="draw from the k most probable codes")
    how.add_argument("--top-p", type=float, help="draw from the fewest codes with this probability together")
    how.add_argument("--greedy", action="store_true", help="take the most probable code")
    add_seed_argument(how, "of the draw")
    add_format_arguments(parser)
    parser.add_argument("--output", required=True, help="audio file, or folder, to write")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    if arguments.omit_prompt and arguments.prompt is None:
        raise UserError("--omit-prompt: there is no prompt; give --prompt")
    for name in ("number", "batch_size", "frames"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be at least 1")
    if not 0 < arguments.seconds < float("inf"):
        raise UserError(f"--seconds {arguments.seconds:g}: must be above 0")
    if not arguments.temperature > 0:
        raise UserError(
            f"--temperature {arguments.temperature:g}: must be above 0; for the most probable code --greedy"
        )


def _files(arguments: argparse.Namespace) -> list[Path]:
    """Return the files to write, checked before anything slow happens."""
    output = Path(arguments.output).expanduser()
    check_place(output)
    if output.suffix.lower() in (".wav", ".flac", ".ogg", ".mp3"):
        if arguments.number > 1:
            raise UserError(f"--output {output}: is one file, but --number is {arguments.number}; name a folder")
        if output.is_dir():
            raise UserError(f"--output {output}: is a folder; name a file in it")
        return [output]
    if output.suffix[1:].isalpha() and not output.is_dir():
        raise UserError(f"--output {output}: cannot write {output.suffix}; name a .wav or .flac file, or a folder")
    if output.is_file():
        raise UserError(f"--output {output}: is a file; name a folder, or a file that ends in .wav")
    digits = max(4, len(str(arguments.number)))
    return [output / f"{number:0{digits}d}.wav" for number in range(1, arguments.number + 1)]


def _draw(arguments: argparse.Namespace, model: AudioModel, frames: int, files: list[Path]) -> list[list[str]]:
    import numpy as np
    from tqdm import tqdm

    from ..data.writing import write_audio
    from ..generation import check_sampling, sample_codes, stream_seeds

    check_sampling(arguments.temperature, arguments.top_k, arguments.top_p)
    model.check_generative("prefill", "step", "init_state")
    quantizer, prompt = model.quantizer, _prompt(arguments, model)
    given = np.empty(0, dtype=np.int64) if prompt is None else quantizer.encode(prompt)
    begin = given[:0] if arguments.omit_prompt else given
    seeds, rows = stream_seeds(arguments.seed, len(files)), []
    with tqdm(total=len(files) * frames, unit="sample", unit_scale=True, disable=None, desc="generate") as bar:
        for first in range(0, len(files), arguments.batch_size):
            chosen = slice(first, first + arguments.batch_size)
            codes, scores = sample_codes(
                model.model,
                given,
                frames,
                seeds[chosen],
                zero=quantizer.zero,
                device=model.device,
                temperature=arguments.temperature,
                top_k=arguments.top_k,
                top_p=arguments.top_p,
                greedy=arguments.greedy,
                progress=bar.update,
            )
            for path, stream, score in zip(files[chosen], codes, scores, strict=True):
                samples = quantizer.decode(np.concatenate([begin, stream]))
                write_audio(path, samples, round(model.card.model_rate))
                total = float(score.astype(np.float64).sum())
                rows.append([path.name, str(frames), f"{total:.4f}", f"{-total / frames / np.log(2):.4f}"])
    return rows


def _diffuse(arguments: argparse.Namespace, model: AudioModel, frames: int, files: list[Path]) -> list[list[str]]:
    import torch

    from ..data.writing import write_audio
    from ..generation import stream_seeds

    for name in ("prompt", "top_k", "top_p"):
        if getattr(arguments, name) is not None:
            raise UserError(
                f"--{name.replace('_', '-')}: a diffusion model does not draw sample by sample; leave it out"
            )
    if arguments.greedy or arguments.temperature != 1:
        option = "--greedy" if arguments.greedy else f"--temperature {arguments.temperature:g}"
        raise UserError(f"{option}: a diffusion model does not draw sample by sample; leave it out")
    rows: list[list[str]] = []
    seeds = stream_seeds(arguments.seed, len(files))
    for first in range(0, len(files), arguments.batch_size):
        chosen = files[first : first + arguments.batch_size]
        own = seeds[first : first + arguments.batch_size]
        generators = [torch.Generator(device=model.device).manual_seed(seed) for seed in own]
        with torch.inference_mode():
            found: Any = model.model.sample(len(chosen), frames, generators)
        for path, samples in zip(chosen, found.float().cpu().numpy().reshape(len(chosen), frames, -1), strict=True):
            write_audio(path, samples, round(model.card.model_rate), overload="clip")
            rows.append([path.name, str(frames), "", ""])
    return rows


def _prompt(arguments: argparse.Namespace, model: AudioModel) -> np.ndarray | None:
    if arguments.prompt is None:
        return None
    from ..data.files import read_audio
    from ..loading import note

    samples, _ = read_audio(arguments.prompt, model.file_format(arguments))
    length = model.card.length
    if length is not None and len(samples) > length:
        note(
            f"{arguments.prompt}: {len(samples)} samples are more than the {length} of the model's training windows; "
            "a state space model carries its state on, but was not trained to use what lies further back"
        )
    if model.quantizer.range != "fixed":
        note(f"the model's codes are relative to the whole clip ({model.quantizer.range}), here to the prompt's own")
    return samples[:, 0]
