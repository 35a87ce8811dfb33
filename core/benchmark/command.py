"""``longscan bench``: measure the operators on this machine."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..cli import Parser
from ..errors import UserError, nearest

if TYPE_CHECKING:
    from .contests import Contest

#: Operators by name: each is a module beside this one, with ``contests(options)``.
OPERATORS = (
    "selective_scan",
    "bidirectional_scan",
    "short_conv",
    "residual_norm",
    "selective_state_update",
    "mamba",
    "vandermonde",
    "cauchy",
)
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def bench(argv: Sequence[str]) -> int:
    """Measure what the command line names, print one table and write the JSON."""
    parser = Parser(
        prog="longscan bench",
        description="Measure time and memory of the operators beside their peers (mamba-ssm, causal-conv1d, plain\n"
        "torch) and, on a GPU, beside the limits of the chip. Peers that are not installed are marked so.",
    )
    parser.add_argument(
        "--operators",
        default=",".join(OPERATORS),
        metavar="NAME,…",
        help=f"which: {', '.join(OPERATORS)} (default: all)",
    )
    parser.add_argument("--peers", metavar="NAME,…", help="only these peers, such as mamba-ssm (default: all)")
    parser.add_argument(
        "--shapes", choices=("large", "small", "all"), help="sizes (default: large on a GPU, small on a CPU)"
    )
    parser.add_argument("--dtype", choices=tuple(DTYPES), help="of the inputs (default: bf16 on a GPU, fp32 on a CPU)")
    parser.add_argument("--backward", action="store_true", help="also measure forward and backward together")
    parser.add_argument("--repeats", type=int, default=20, help="timed runs, fewer if they are slow (default: 20)")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="where (default: a GPU if there is one)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args(list(argv))
    names = [name.strip() for name in arguments.operators.split(",") if name.strip()]
    for name in names:
        if name not in OPERATORS:
            raise UserError(f"--operators: {name!r} is unknown; {nearest(name, OPERATORS)}")
    if not names or arguments.repeats < 1:
        raise UserError("--operators and --repeats: need at least one operator and one run")

    import torch

    from .chip import Chip, describe
    from .contests import Options
    from .results import run, show, write

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; use --device cpu")
    options = Options(
        device=device,
        dtype=getattr(torch, DTYPES[arguments.dtype or ("bf16" if device == "cuda" else "fp32")]),
        shapes=arguments.shapes or ("large" if device == "cuda" else "small"),
        backward=arguments.backward,
    )
    contests = [
        contest for name in names for contest in importlib.import_module(f".{name}", __package__).contests(options)
    ]
    if arguments.peers is not None:
        contests = _with_peers(contests, [name.strip() for name in arguments.peers.split(",") if name.strip()])
    chip = Chip.measured() if device == "cuda" else None
    setting = describe(options, chip)
    outcomes = run(contests, options, chip, arguments.repeats)
    show(setting, outcomes)
    if arguments.output:
        write(arguments.output, setting, outcomes)
        print(f"\nwrote {arguments.output}")
    return 0


def _with_peers(contests: Sequence[Contest], wanted: list[str]) -> list[Contest]:
    """The contests with the peers whose names begin with one of these."""
    known = sorted({peer for contest in contests for peer in contest.peers})
    for name in wanted:
        if not any(peer.startswith(name) for peer in known):
            raise UserError(f"--peers: {name!r} is unknown; {nearest(name, known)}")
    return [
        replace(contest, peers={peer: maker for peer, maker in contest.peers.items() if peer.startswith(tuple(wanted))})
        for contest in contests
    ]
