"""Tasks of the compiled kernels run once each, at the same time, and tell of their failures."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from longscan.core.ops import _sequences, _threads
from longscan.core.ops._threads import run_tasks

_MAPS = Path("/proc/self/maps")

_FORK = """
import os, sys, torch
from longscan.core.ops._threads import run_tasks
torch.set_num_threads(2)
torch.rand(300, 300) @ torch.rand(300, 300)  # the team is there
done = []
run_tasks(done.append, 7)
if (child := os.fork()) == 0:
    done.clear()
    run_tasks(done.append, 9)
    os._exit(sorted(done) != list(range(9)))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or sorted(done) != list(range(7)))
"""


@pytest.fixture(params=["as here", "pool"])
def set_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """On the threads that this machine has (`test_the_team_is_that_of_pytorch` says which), and on the pool."""
    if request.param == "pool":
        monkeypatch.setattr(_threads, "_openmp_team", lambda: None)
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(("threads", "count"), [(1, 5), (2, 1), (2, 0), (2, 40), (3, 2), (5, 200)])
def test_each_task_runs_once(set_threads: Callable[[int], None], threads: int, count: int) -> None:
    set_threads(threads)
    runs: list[int] = []
    run_tasks(runs.append, count)
    assert Counter(runs) == Counter(range(count))


def test_two_run_at_the_same_time(set_threads: Callable[[int], None]) -> None:
    set_threads(2)
    meeting, names = threading.Barrier(2, timeout=30), set()

    def task(index: int) -> None:
        meeting.wait()
        names.add(threading.get_ident())

    run_tasks(task, 2)
    assert len(names) == 2
    assert threading.get_ident() in names


def test_a_failure_is_raised_and_nothing_begins_after_it(set_threads: Callable[[int], None]) -> None:
    set_threads(2)
    begun: list[int] = []

    def task(index: int) -> None:
        begun.append(index)
        if index == 3:
            raise KeyboardInterrupt("stop")
        if index > 3:
            threading.Event().wait(0.05)

    with pytest.raises(KeyboardInterrupt, match="stop"):
        run_tasks(task, 1000)
    assert len(begun) < 20
    run_tasks(begun.append, 2)  # the threads are still there


@pytest.mark.skipif(not _MAPS.exists(), reason="only Linux lists what is loaded")
def test_the_team_is_that_of_pytorch() -> None:
    own = str(Path(torch.__file__).parent.parent / "torch")
    loaded = {line.split()[-1] for line in _MAPS.read_text().splitlines() if "libgomp" in line}
    assert (_threads._openmp_team() is not None) == any(path.startswith(own) for path in loaded)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", _FORK], timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_parts_are_worth_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _sequences.split([0, 17, 34, 51], 64).parts == [0, 1, 2, 3]  # as tests of this folder split
    monkeypatch.undo()
    assert _sequences.split([0, 17, 34, 51], 64).parts == [0, 3]
    images = list(range(0, 64 * 17 + 1, 17))
    assert _sequences.split(images, 64).parts == [0, 16, 32, 48, 64]
    assert len(_sequences.split([length * 100 for length in images], 64).parts) == 17
    assert _sequences.split([0, 0], 64).parts == [0, 1]
