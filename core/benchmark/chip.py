"""What the figures belong to (chip, driver, versions, date) and the limits of the chip."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from .contests import Options
from .timing import METHOD, measure

_EXPONENTIALS_PER_CLOCK = 16  # of a multiprocessor: its special-function units, compute capability 7.0 to 10.0
_PACKAGES = ("longscan", "torch", "triton", "numba", "mamba-ssm", "causal-conv1d")


@dataclass(frozen=True)
class Chip:
    """The limits of a GPU."""

    bandwidth: float
    """Bytes a second that a copy within the GPU reads and writes, measured."""
    clock: float | None
    """Highest clock of the multiprocessors in Hz; None where nvidia-smi does not tell."""
    multiprocessors: int

    @classmethod
    def measured(cls) -> Chip:
        """The limits of the current GPU."""
        source = torch.empty(1 << 30, dtype=torch.int8, device="cuda")
        target = torch.empty_like(source)
        seconds = measure(lambda: target.copy_(source), "cuda", 20).seconds
        clock = _nvidia_smi("clocks.max.sm")
        return cls(
            2 * source.numel() / seconds,
            float(clock.split()[0]) * 1e6 if clock else None,
            torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count,
        )

    @property
    def exponentials(self) -> float | None:
        """Exponentials a second."""
        return None if self.clock is None else _EXPONENTIALS_PER_CLOCK * self.clock * self.multiprocessors

    def floor(self, bytes_moved: int, exponentials: int) -> float | None:
        """Seconds that no implementation can beat: the longer of moving the bytes and computing the exponentials."""
        if not bytes_moved or (exponentials and self.exponentials is None):
            return None
        return max(bytes_moved / self.bandwidth, exponentials / (self.exponentials or 1.0))


def describe(options: Options, chip: Chip | None) -> dict[str, str]:
    """The machine, the versions and the manner of measuring."""
    setting = {"date": date.today().isoformat(), "cpu": _cpu_name(), "threads": str(torch.get_num_threads())}
    if chip is not None:
        clock = "unknown" if chip.clock is None else f"{chip.clock / 1e6:.0f} MHz"
        setting |= {
            "gpu": torch.cuda.get_device_name(),
            "driver": _nvidia_smi("driver_version") or "unknown",
            "cuda": str(torch.version.cuda),
            "copy bandwidth": f"{chip.bandwidth / 1e12:.3f} TB/s",
            "highest clock": f"{clock}, {chip.multiprocessors} multiprocessors",
        }
    elif hasattr(os, "getloadavg"):
        setting["load"] = f"{os.getloadavg()[0]:.2f}"
    setting |= {"device": options.device, "dtype": str(options.dtype).removeprefix("torch.")}
    setting["python"] = platform.python_version()
    for package in _PACKAGES:
        try:
            setting[package] = version(package)
        except PackageNotFoundError:
            setting[package] = "not installed"
    return setting | {"method": METHOD[options.device]}


def _nvidia_smi(query: str) -> str | None:
    """One property of the current GPU; None where the tool is missing or does not know."""
    try:
        identity = f"GPU-{str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid).removeprefix('GPU-')}"
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "-i", identity]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return answer if answer and "N/A" not in answer else None


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
