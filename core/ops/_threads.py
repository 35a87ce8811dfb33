"""Tasks of compiled kernels, which release Python's lock, on PyTorch's own threads where these can be had.

PyTorch computes on a team of OpenMP threads, which keep spinning for some milliseconds after each operator so as to be
there for the next one. Threads of another pool would have to share the processors with them: on two cores a second
thread then gains nothing. GNU's OpenMP, which PyTorch's wheels for Linux bring, lends the team to anyone who asks
(``GOMP_parallel``). Elsewhere, and in forked processes, where the team is gone, there is a pool of threads.
"""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

_Work = Callable[[], None]

_forked = False
_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def run_tasks(task: Callable[[int], None], count: int) -> None:
    """Call ``task(0)`` to ``task(count - 1)`` on up to ``torch.get_num_threads()`` threads, this one among them.

    Which thread runs a task varies, so tasks write to places of their own and the results do not depend on it. When a
    task raises, tasks that have not begun are left out, and the exception is raised here.
    """
    threads = torch.get_num_threads()
    if min(threads, count) <= 1:
        for index in range(count):
            task(index)
        return
    counter = itertools.count()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            # next() on a count is atomic.
            for index in iter(counter.__next__, None):
                if index >= count or failures:
                    return
                task(index)
        except BaseException as failure:  # an interrupt too: what calls this is no Python code
            failures.append(failure)

    team = None if _forked else _openmp_team()
    if team is None:
        _run_in_pool(work, min(threads, count))
    else:
        team(work, threads)  # always all of them: a smaller team would end threads that PyTorch has to start again
    if failures:
        raise failures[0]


@cache
def _openmp_team() -> Callable[[_Work, int], None] | None:
    """A function that runs something on every thread of PyTorch's team, or None where there is no such team."""
    library = _loaded_openmp()
    if library is None:
        return None
    callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    parallel: Any = library.GOMP_parallel
    parallel.argtypes = [callback, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None

    def run(work: _Work, threads: int) -> None:
        parallel(callback(lambda _: work()), None, threads, 0)

    return run


def _loaded_openmp() -> ctypes.CDLL | None:
    """GNU's OpenMP if PyTorch has loaded its own copy of it."""
    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    package = Path(torch.__file__).parent
    for path in (*package.glob("lib/libgomp*.so*"), *package.parent.glob("torch.libs/libgomp*.so*")):
        try:
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD)
        except OSError:  # there, but not what PyTorch uses
            continue
        if hasattr(library, "GOMP_parallel"):
            return library
    return None


def _run_in_pool(work: _Work, threads: int) -> None:
    helpers = [_get_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for helper in helpers:
        helper.result()


def _get_pool(size: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    if _pool is None or _pool_size < size:
        _pool, _pool_size = ThreadPoolExecutor(size, thread_name_prefix="longscan"), size
    return _pool


def _forget_threads() -> None:
    global _forked, _pool, _pool_size
    _forked, _pool, _pool_size = True, None, 0


# Threads do not survive a fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
