"""``longscan genomics generate``: new sequences, prompted or not, as FASTA."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ...core.cli import Parser
from ...core.errors import UserError
from .options import add_model_arguments, add_seed_argument, check_output

if TYPE_CHECKING:
    from ..inference import DNAModel
    from ..sampling import Prompt, Sample

_DESCRIPTION = """\
Draw DNA from a causal language model and write it as FASTA.

Without a prompt the first base of each sequence is drawn evenly from A, C, G and T (no DNA model has a token for the
beginning of a sequence) and counts in --length. After a prompt --length bases are added.
The draw depends on --seed and the number of the sequence alone, not on --batch-size.
Headers: log_likelihood= is the natural logarithm of the model's probability of the bases that it drew (predicted=),
each after those before it, before temperature and truncation; mean_log_likelihood= is that per base.
"""


def generate(argv: list[str]) -> int:
    """``longscan genomics generate``."""
    arguments = _parser().parse_args(argv)
    from tqdm import tqdm

    from ...core.files import replacing
    from ..inference import load_model
    from ..sampling import check_generates, first_bases, sample_sequences

    _check(arguments)
    check_output(arguments.output)
    model = load_model(arguments)
    check_generates(model)
    prompts = _prompts(arguments, model)
    new_bases = arguments.length if prompts else arguments.length - 1
    prompts = [prompt for prompt in prompts for _ in range(arguments.number)] or first_bases(
        arguments.number, arguments.seed
    )
    with (
        tqdm(total=len(prompts) * new_bases, unit="base", unit_scale=True, disable=None, desc="generate") as bar,
        replacing(arguments.output) as temporary,
        temporary.open("w", encoding="utf-8") as output,
    ):
        samples = sample_sequences(
            model,
            prompts,
            new_bases,
            arguments.seed,
            batch_size=arguments.batch_size,
            any_token=arguments.any_token,
            progress=bar.update,
            temperature=arguments.temperature,
            top_k=arguments.top_k,
            top_p=arguments.top_p,
            greedy=arguments.greedy,
        )
        for sample in samples:
            output.write(_record(sample, arguments, model))
    print(f"{len(prompts)} sequence(s) -> {arguments.output}")
    return 0


def _parser() -> Parser:
    parser = Parser(prog="longscan genomics generate", description=_DESCRIPTION)
    add_model_arguments(parser)
    what = parser.add_argument_group("what")
    what.add_argument("--length", type=int, default=1000, help="bases to generate [%(default)s]")
    what.add_argument("--number", type=int, default=1, help="sequences, for each prompt [%(default)s]")
    what.add_argument("--prompt", metavar="ACGT", help="begin with these bases")
    what.add_argument("--prompt-fasta", metavar="FILE", help="begin with each record of this file in turn")
    what.add_argument("--omit-prompt", action="store_true", help="write the new bases alone")
    how = parser.add_argument_group("sampling")
    how.add_argument("--temperature", type=float, default=1.0, help="divides the logits [%(default)s]")
    how.add_argument("--top-k", type=int, help="draw from the k most probable bases")
    how.add_argument("--top-p", type=float, help="draw from the fewest bases with this probability together")
    how.add_argument("--greedy", action="store_true", help="take the most probable base")
    how.add_argument("--any-token", action="store_true", help="allow tokens beside A, C, G, T; written as N")
    add_seed_argument(how, "of the draw")
    parser.add_argument("--output", required=True, help="FASTA file to write")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    prompted = arguments.prompt is not None or arguments.prompt_fasta is not None
    if arguments.prompt is not None and arguments.prompt_fasta is not None:
        raise UserError("--prompt and --prompt-fasta exclude each other; give one")
    if arguments.omit_prompt and not prompted:
        raise UserError("--omit-prompt: there is no prompt; give --prompt or --prompt-fasta")
    for name, least in (("length", 1 if prompted else 2), ("number", 1)):
        if getattr(arguments, name) < least:
            raise UserError(f"--{name} {getattr(arguments, name)}: must be at least {least}")
    if not arguments.temperature > 0:
        raise UserError(
            f"--temperature {arguments.temperature:g}: must be above 0; for the most probable base --greedy"
        )
    if arguments.top_k is not None and arguments.top_k < 1:
        raise UserError(f"--top-k {arguments.top_k}: must be at least 1")
    if arguments.top_p is not None and not 0 < arguments.top_p <= 1:
        raise UserError(f"--top-p {arguments.top_p:g}: must lie above 0 and be at most 1")


def _prompts(arguments: argparse.Namespace, model: DNAModel) -> list[Prompt]:
    """The prompts that the options give, none without."""
    from ..data.fasta import open_fasta
    from ..sampling import Prompt
    from ..tokenizer import UNK

    texts: list[tuple[str, str, str]] = []
    if arguments.prompt is not None:
        texts.append(("prompt", arguments.prompt, "--prompt"))
    if arguments.prompt_fasta is not None:
        fasta = open_fasta(arguments.prompt_fasta)
        texts += [
            (name, fasta.fetch(name, 0, length), f"{fasta.path}: {name!r}") for name, length in fasta.lengths.items()
        ]
    prompts = []
    for name, text, where in texts:
        if not text:
            raise UserError(f"{where}: is empty; give at least one base")
        ids = model.tokenizer.encode_symbols(text.upper(), where=where)
        if (ids == UNK).any():
            at = int((ids == UNK).argmax())
            raise UserError(f"{where}: {text[at]!r} at position {at + 1} is not A, C, G, T or N; correct it")
        prompts.append(Prompt(name, ids))
    return prompts


def _record(sample: Sample, arguments: argparse.Namespace, model: DNAModel) -> str:
    from ..data.fasta import fasta_text

    fields = {
        "log_likelihood": f"{sample.log_likelihood:.6f}",
        "mean_log_likelihood": f"{sample.log_likelihood / sample.predicted:.6f}",
        "predicted": sample.predicted,
        "model": model.name,
        "revision": model.revision,
        "seed": arguments.seed,
    }
    sequence = sample.sequence[sample.prompt :] if arguments.omit_prompt else sample.sequence
    header = " ".join(f"{name}={value}" for name, value in fields.items())
    return fasta_text(f"{sample.name} {header}", sequence)
