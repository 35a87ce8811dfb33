"""One forward pass of HyenaDNA's largest configuration over 1,000,002 tokens on a CPU: time and peak memory."""

from __future__ import annotations

import resource
import time
from typing import Any


def run() -> list[dict[str, Any]]:
    """Return one row; the weights are random, which changes neither time nor memory."""
    import torch

    import longscan

    torch.manual_seed(0)
    model = longscan.create_model("hyenadna_large_1m").eval()
    ids = torch.randint(7, 11, (1, 1_000_002))
    start = time.perf_counter()
    with torch.no_grad():
        logits = model(ids)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return [
        {
            "operation": "HyenaDNA large, forward",
            "shape": f"{tuple(ids.shape)} -> {tuple(logits.shape)}",
            "seconds": round(seconds, 1),
            "peak_gib": round(peak / 2**30, 2),
            "finite": bool(logits.isfinite().all()),
            "threads": torch.get_num_threads(),
        }
    ]


if __name__ == "__main__":
    print(run()[0])
