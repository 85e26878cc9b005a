"""Work done in a fork, which may die of it.

A process that has used Delta Lake, DuckDB or MLflow has threads, and must not be forked. So the parent only imports, as
much as a child will need, and every piece of work is a child's.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def in_child(work: Callable[[], Any], answer: Path, *, seconds: float | None = None) -> int:
    """Run `work` in a fork, and write what it returns as JSON; killed after so many seconds. Returns its status."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            answer.write_text(json.dumps(work(), default=str))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def value_of(work: Callable[[], Any], answer: Path) -> Any:
    """What a piece of work returns, done in a fork that must come through."""
    status = in_child(work, answer)
    if status != 0:
        raise SystemExit(f"a child that nothing disturbed ended with status {status}")
    return json.loads(answer.read_text())


def modules() -> list[str]:
    """What this process has imported, for `warm` in its parent."""
    return [name for name in sys.modules if not name.startswith("__")]


def warm(names: Iterable[str]) -> None:
    """Import what a child had imported in the end, so that the next children need not."""
    for name in names:
        # Some are made by other modules, and cannot be imported by their name.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    from mlflow.utils import requirements_utils

    # Which package each module belongs to: MLflow looks through all of them once a process.
    requirements_utils._init_modules_to_packages_map()
    if threading.active_count() > 1:
        raise SystemExit(f"the parent has threads and must not be forked: {threading.enumerate()}")
