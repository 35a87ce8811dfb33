"""Running the contests, the table and the JSON."""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..files import replacing
from ..report import print_table
from .chip import Chip
from .contests import Contest, Maker, Options
from .timing import Measurement, measure

NOT_INSTALLED = "not installed"
OUT_OF_MEMORY = "out of memory"
_PEERS = ("mamba_ssm", "causal_conv1d", "pykeops")


@dataclass
class Outcome:
    """A contest with what was measured: a ``Measurement``, or in a word why there is none."""

    contest: Contest
    ours: Measurement | str
    floor: float | None
    """Seconds that the chip allows for a forward pass."""
    peers: dict[str, Measurement | str] = field(default_factory=dict)

    @property
    def fraction_of_floor(self) -> float | None:
        """The chip's time over ours: 1 is as fast as it goes."""
        return self.floor / self.ours.seconds if self.floor and isinstance(self.ours, Measurement) else None

    def ratio(self, peer: str) -> float | None:
        """The peer's time over ours: above 1 we are faster."""
        theirs = self.peers[peer]
        if isinstance(theirs, Measurement) and isinstance(self.ours, Measurement):
            return theirs.seconds / self.ours.seconds
        return None


def run(contests: Sequence[Contest], options: Options, chip: Chip | None, repeats: int) -> list[Outcome]:
    """Measure all contestants, one after the other."""
    outcomes = []
    with tqdm(total=sum(1 + len(contest.peers) for contest in contests), unit="run", disable=None) as progress:
        for contest in contests:
            floor = None
            if chip is not None and not contest.backward:
                floor = chip.floor(contest.bytes_moved, contest.exponentials)
            found: dict[str, Measurement | str] = {}
            for name, maker in {"longscan": contest.ours, **contest.peers}.items():
                progress.set_description(f"{contest.operator} {_shape(contest)} {name}")
                found[name] = _measured(maker, contest, options, repeats)
                progress.update()
            outcomes.append(Outcome(contest, found.pop("longscan"), floor, found))
    return outcomes


def _measured(maker: Maker, contest: Contest, options: Options, repeats: int) -> Measurement | str:
    torch.manual_seed(0)
    try:
        return measure(maker(), options.device, repeats, contest.calls, contest.graph and options.device == "cuda")
    except ImportError as error:
        if maker is contest.ours:
            raise
        if isinstance(error, ModuleNotFoundError) and error.name in _PEERS:
            return NOT_INSTALLED
        return f"import fails: {' '.join(str(error).split())}"
    except torch.OutOfMemoryError:
        return OUT_OF_MEMORY
    finally:
        if options.device == "cuda":
            gc.collect()
            torch.cuda.empty_cache()


def _shape(contest: Contest) -> str:
    return " ".join(f"{name} {value}" for name, value in contest.shape.items())


def _pass(contest: Contest) -> str:
    return "forward+backward" if contest.backward else "forward"


def show(setting: dict[str, str], outcomes: Sequence[Outcome]) -> None:
    """Print the setting and one table; ratios are the peer's time over ours."""
    print("\n".join(f"{key}: {value}" for key, value in setting.items()), end="\n\n")
    header = ("operator", "shape", "pass", "ours ms", "peer", "peer ms", "ratio", "of floor", "ours MiB", "peer MiB")
    rows = []
    for outcome in outcomes:
        contest = outcome.contest
        fraction = outcome.fraction_of_floor
        for peer, theirs in (outcome.peers or {"-": "-"}).items():
            ratio = outcome.ratio(peer) if outcome.peers else None
            rows.append(
                (
                    contest.operator,
                    _shape(contest),
                    _pass(contest),
                    _milliseconds(outcome.ours),
                    peer,
                    _milliseconds(theirs),
                    "-" if ratio is None else f"{ratio:.2f}",
                    "-" if fraction is None else f"{fraction:.0%}",
                    _mebibytes(outcome.ours),
                    _mebibytes(theirs),
                )
            )
    print_table(header, rows)


def _milliseconds(found: Measurement | str) -> str:
    return found if isinstance(found, str) else f"{found.seconds * 1e3:.4g}"


def _mebibytes(found: Measurement | str) -> str:
    return "-" if isinstance(found, str) else f"{found.peak_bytes / 2**20:.0f}"


def write(path: Path, setting: dict[str, str], outcomes: Sequence[Outcome]) -> None:
    """All measurements as JSON: seconds, bytes, ratios."""
    rows = [
        {
            "operator": outcome.contest.operator,
            "shape": dict(outcome.contest.shape),
            "pass": _pass(outcome.contest),
            "ours": _as_json(outcome.ours),
            "floor_seconds": outcome.floor,
            "fraction_of_floor": outcome.fraction_of_floor,
            "peers": {
                peer: _as_json(theirs) | {"ratio": outcome.ratio(peer)} for peer, theirs in outcome.peers.items()
            },
        }
        for outcome in outcomes
    ]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"setting": setting, "results": rows}, indent=1) + "\n")


def _as_json(found: Measurement | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"seconds": None, "repeats": 0, "peak_bytes": None, "note": found}
    return {"seconds": found.seconds, "repeats": found.repeats, "peak_bytes": found.peak_bytes, "note": None}
