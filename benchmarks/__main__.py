"""``python -m benchmarks [name ...]``: measure, print a table and write JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from dataclasses import asdict
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from . import Row

NAMES = ("selective_scan_cpu", "hyenadna_million", "audio_generation", "vision_resolution", "timeseries_speed")


def main() -> None:
    """Run what the command line names, print the table and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"which to run: {', '.join(NAMES)} (default: all)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of every contestant")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs after one to warm up (default: 7)")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="where to write the measurements")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(NAMES))
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}; known: {', '.join(NAMES)}")

    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    for name in options.names or NAMES:
        benchmark = importlib.import_module(f"benchmarks.{name}")
        rows += benchmark.run(options.repeats, lambda line: print(line, file=sys.stderr, flush=True))
    setting = describe(options.threads)
    print("\n".join(f"{key}: {value}" for key, value in setting.items()) + "\n\n" + table(rows))
    write(options.json, setting, rows)


def describe(threads: int) -> dict[str, str]:
    """The machine and the versions that the figures belong to."""
    setting = {
        "date": date.today().isoformat(),
        "cpu": _cpu_name(),
        "logical cpus": str(os.cpu_count()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": str(threads),
        "load before": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown",
        "python": platform.python_version(),
    }
    for package in ("torch", "numba", "triton", "transformers", "mambapy", "mamba-ssm"):
        try:
            setting[package] = version(package)
        except PackageNotFoundError:
            setting[package] = "not installed"
    return setting


def table(rows: list[Row]) -> str:
    """One block for each case; the ratio is the peer's best time over that of the case's first row, which is ours."""
    lines = []
    for case in dict.fromkeys((row.benchmark, row.case) for row in rows):
        lines += ["", f"{case[0]}: {case[1]}"]
        lines.append(f"{'':38}{'best ms':>12}{'median ms':>12}{'ratio':>9}{'peak MiB':>10}")
        block = [row for row in rows if (row.benchmark, row.case) == case]
        ours = block[0].measurement
        for row in block:
            found = row.measurement
            if found is None or ours is None:
                lines.append(f"{row.contestant:38}{'-':>12}{'-':>12}{'-':>9}{'-':>10}  {row.note}")
                continue
            memory = f"{found.peak_memory / 2**20:.0f}" if found.peak_memory else "-"
            lines.append(
                f"{row.contestant:38}{found.best * 1e3:12.1f}{found.median * 1e3:12.1f}"
                f"{found.best / ours.best:9.2f}{memory:>10}  {row.note}".rstrip()
            )
    return "\n".join(lines[1:])


def write(path: Path, setting: dict[str, str], rows: list[Row]) -> None:
    """All measurements as JSON, under a temporary name until they are complete."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps({"setting": setting, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    os.replace(temporary, path)
    print(f"\nwrote {path}")


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
