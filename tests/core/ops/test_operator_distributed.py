"""Gradients through the operators under DistributedDataParallel, in two processes on the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from longscan.core.mixers import create_mixer
from longscan.core.norms import create_norm

rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
torch.manual_seed(0)
model = nn.Sequential(create_mixer("mamba", 8), create_norm("rmsnorm", 8), create_mixer("lru", 8, d_state=4))
x = torch.randn(4, 13, 8)
model(x).square().mean().backward()
alone = [parameter.grad.clone() for parameter in model.parameters()]
model.zero_grad()
parallel = DistributedDataParallel(model)
parallel(x[2 * rank : 2 * rank + 2]).square().mean().backward()
for (name, parameter), expected in zip(model.named_parameters(), alone, strict=True):
    torch.testing.assert_close(parameter.grad, expected, msg=lambda text: f"{name}: {text}")
print("agrees", len(alone))
"""


def test_gradients_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    processes = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(rank), store], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert output.startswith("agrees")
        assert int(output.split()[1]) >= 15
