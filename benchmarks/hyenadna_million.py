"""One forward pass of HyenaDNA's largest configuration over 1,000,002 tokens on the CPU: time and peak memory."""

from __future__ import annotations

from collections.abc import Callable

import torch

import longscan

from . import Row, measure

NAME = "hyenadna_million"
LENGTH = 1_000_002


def run(repeats: int, report: Callable[[str], None]) -> list[Row]:
    """Run once, whatever ``repeats`` says: it takes minutes. The weights are random, which changes neither figure."""
    case = f"hyenadna_large_1m, batch 1, length {LENGTH}, float32, forward without gradients"
    report(case)
    torch.manual_seed(0)
    model = longscan.create_model("hyenadna_large_1m").eval()
    ids = torch.randint(7, 11, (1, LENGTH))

    def forward() -> None:
        with torch.no_grad():
            logits = model(ids)
        if logits.shape != (1, LENGTH, 16) or not bool(logits.isfinite().all()):
            raise RuntimeError("the logits are not finite")

    return [Row(NAME, case, "longscan", measure(forward, 1, warm_up=0), "one run; peak beside weights and ids")]
