"""A small pool of threads for compiled kernels, which release Python's lock."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def run_tasks(task: Callable[[int], None], count: int) -> None:
    """Call ``task(0)`` to ``task(count - 1)`` on up to ``torch.get_num_threads()`` threads, this one among them.

    Which thread runs a task varies, so tasks write to places of their own and the results do not depend on it.
    """
    workers = min(torch.get_num_threads(), count)
    if workers <= 1:
        for index in range(count):
            task(index)
        return
    counter = itertools.count()

    def work() -> None:
        # next() on a count is atomic.
        for index in iter(counter.__next__, None):
            if index >= count:
                return
            task(index)

    helpers = [_get_pool(workers - 1).submit(work) for _ in range(workers - 1)]
    try:
        work()
    finally:
        for helper in helpers:
            helper.result()


def _get_pool(size: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    if _pool is None or _pool_size < size:
        _pool, _pool_size = ThreadPoolExecutor(size, thread_name_prefix="longscan"), size
    return _pool


def _forget_pool() -> None:
    global _pool, _pool_size
    _pool, _pool_size = None, 0


# Threads do not survive a fork: the child starts its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
