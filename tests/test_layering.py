"""The layers depend downwards only, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOMAINS = ("genomics", "audio", "vision", "timeseries")


def imported_packages(path: Path) -> set[str]:
    """Return the top-level parts of longscan (``core``, ``genomics``, …) that a file imports, resolved."""
    package = ("longscan", *path.relative_to(ROOT).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            names = [f"{module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "longscan" and len(parts) > 1:
                found.add(parts[1])
    return found


def test_the_checker_sees_relative_imports() -> None:
    """The rule below would hold for nothing if this did not."""
    assert "core" in imported_packages(ROOT / "genomics" / "models" / "caduceus.py")


@pytest.mark.parametrize("layer", ["core", *DOMAINS])
def test_layers_import_only_what_is_below(layer: str) -> None:
    """Core imports no domain; a domain imports no other domain."""
    forbidden = set(DOMAINS) - {layer}
    for path in (ROOT / layer).rglob("*.py"):
        wrong = imported_packages(path) & forbidden
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize(
    "code",
    [
        "import longscan",
        "import longscan.core, longscan.genomics",
        "from longscan.__main__ import main; main(['--help'])",
        "from longscan.__main__ import main; main(['genomics', '--help'])",
    ],
)
def test_light_imports(code: str) -> None:
    """Importing the package and asking for help load neither torch nor lightning."""
    check = f"import sys\n{code}\nassert not {{'torch', 'lightning', 'numba', 'triton'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, stdout=subprocess.DEVNULL)


def test_help_answers_within_a_second() -> None:
    """The best of three, since another process may hold the machine for a moment."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "longscan", "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    print(f"longscan --help: {min(times):.3f} s")
    assert min(times) < 1.0


def test_importing_the_models_touches_no_gpu_and_compiles_nothing() -> None:
    """Registering all models needs no CUDA context and no kernels."""
    check = (
        "import sys, longscan; longscan.list_models(); import torch\n"
        "assert not torch.cuda.is_initialized()\n"
        "assert 'triton' not in sys.modules and 'numba' not in sys.modules, 'kernels were imported'"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
