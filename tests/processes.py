"""Whether a process lives, for tests that end one."""

from __future__ import annotations

import time

import psutil


def lives(pid: int) -> bool:
    """Whether there is such a process, other than one that only waits to be noticed as ended.

    >>> import os
    >>> lives(os.getpid())
    True
    """
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def gone(pid: int, seconds: float = 20.0) -> bool:
    """Whether it ends within so many seconds."""
    until = time.monotonic() + seconds
    while lives(pid) and time.monotonic() < until:
        time.sleep(0.1)
    return not lives(pid)
