"""Several trainings on the same rows at a time, each with one thread: this process's, and a child's for each core more.

Steps on tables are too short for two threads to share, so that a retraining of four models leaves all cores but one
idle. A child trains with the same program, seeds and threads, and gives the same bits. It is kept for the next time,
and ends with this process, however that ends.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from softad.bundle import Prepared, train_prepared, untrained
from softad.criterion import Criterion
from softad.loop import TrainingDiverged
from softad.model_bundle import ModelBundle
from softad.training import FitResult

__all__ = ["Job", "Trained", "train_all"]

STOP_SECONDS = 10
"""A child whose line has closed is gone at once."""


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes
    ----------
    criterion: what is descended on; what it learns meanwhile (theta "auto") is in it afterwards.
    arguments: of `softad.bundle.train_prepared`.
    """

    criterion: Criterion
    arguments: dict[str, Any]


Trained = tuple[ModelBundle, FitResult]
"""What a training gives, as `softad.bundle.train_prepared` does."""


def train_all(
    prepared: Prepared,
    jobs: Sequence[Job],
    *,
    processes: int = 1,
    starting: Callable[[int], None] | None = None,
) -> list[Trained | TrainingDiverged]:
    """Train one model a job, `processes` at a time, and return what came of each, in the order of the jobs.

    Parameters
    ----------
    processes: this one included. A child is given what this one does not come to; where a child ends, or cannot do a
        job, this process does it, with a warning.
    starting: told the number of a job, from 0, when it begins; from more than one thread.

    >>> import numpy as np, pandas as pd
    >>> from softad import Mean, SoftAD
    >>> from softad.bundle import prepare
    >>> frame = pd.DataFrame({"x": np.linspace(-1.0, 1.0, 100)})
    >>> labels = np.where(frame["x"] > 0, "bad", "ok")
    >>> rows = prepare(frame, labels, frame, labels, task="classification", classes=["ok", "bad"], numeric=["x"],
    ...                categorical=[])
    >>> jobs = [Job(criterion, {"model": "linear", "epochs": 2}) for criterion in (Mean(), SoftAD(theta=0.1))]
    >>> found = train_all(rows, jobs)
    >>> [len(result.history) for _, result in found]
    [2, 2]

    Raises
    ------
    ValueError: an argument does not fit, as `softad.bundle.train_prepared` says.
    """
    waiting = deque(range(len(jobs)))
    found: dict[int, Trained | TrainingDiverged] = {}

    def here(number: int) -> None:
        if starting is not None:
            starting(number)
        try:
            found[number] = train_prepared(prepared, criterion=jobs[number].criterion, **jobs[number].arguments)
        except TrainingDiverged as error:
            found[number] = error

    def there(child: _Child) -> None:
        while (number := _taken(waiting)) is not None:
            try:
                if starting is not None:
                    starting(number)
                found[number] = _received(prepared, jobs[number], child.train(prepared, jobs[number]))
            except (
                Exception
            ) as error:  # whatever it was: this process does the job too, and raises what it meets itself
                waiting.append(number)
                child.failure = error
                return

    with _children(min(processes, len(jobs)) - 1) as children:
        threads = [threading.Thread(target=there, args=(child,), daemon=True) for child in children]
        for thread in threads:
            thread.start()
        while True:
            while (number := _taken(waiting, first=True)) is not None:
                here(number)
            for thread in threads:
                thread.join()
            if not waiting:
                break
    return [found[number] for number in range(len(jobs))]


def _taken(waiting: deque[int], *, first: bool = False) -> int | None:
    try:
        return waiting.popleft() if first else waiting.pop()
    except IndexError:
        return None


class _Child:
    """A process that trains; see `softad.training_process`."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "softad.training_process", str(theirs.fileno())],
                env=os.environ | {"PYTHONPATH": path},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                # What a command prints is its own, and may be JSON.
                stdout=2,
                # Ctrl-C is for this process; the child ends when its end of the line closes.
                start_new_session=True,
            )
        self.line = Connection(ours.detach())
        self.parent = os.getpid()
        self.failure: Exception | None = None

    @property
    def usable(self) -> bool:
        """Whether it runs, as a child of this very process."""
        return self.failure is None and self.parent == os.getpid() and self.process.poll() is None

    def train(self, prepared: Prepared, job: Job) -> dict[str, Any]:
        """Have one job done; a RuntimeError where the child ends meanwhile or could not do it, with the reason."""
        try:
            self.line.send((prepared, job.criterion, job.arguments))
            answer: dict[str, Any] = self.line.recv()
        except (OSError, EOFError) as error:
            raise RuntimeError(f"it ended with status {self.process.wait(STOP_SECONDS)}") from error
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer

    def stop(self) -> None:
        """End it; nothing happens in a process that was forked from the one that started it."""
        if self.parent != os.getpid():
            return
        self.process.kill()
        self.process.wait()
        self.line.close()


_KEPT: list[_Child] = []
"""Children that wait for a job."""


def _stop_kept() -> None:
    while _KEPT:
        _KEPT.pop().stop()


atexit.register(_stop_kept)


@contextmanager
def _children(count: int) -> Iterator[list[_Child]]:
    """So many children, which are kept for the next time where nothing went wrong."""
    kept = [child for child in (_KEPT.pop() for _ in range(len(_KEPT))) if child.usable]
    children = [kept.pop() if kept else _Child() for _ in range(max(count, 0))]
    _KEPT.extend(kept)
    try:
        yield children
    except BaseException:
        # One may be at work still.
        for child in children:
            child.stop()
        raise
    for child in children:
        if child.usable:
            _KEPT.append(child)
            continue
        child.stop()
        warnings.warn(
            f"a process that trained beside this one failed ({child.failure or 'it ended'}); what it was to train was "
            "trained here",
            RuntimeWarning,
            stacklevel=3,
        )


_SHAPE = ("model", "hidden", "embedding", "seed", "metadata")
"""The arguments that say what is trained, the others say how."""


def _received(prepared: Prepared, job: Job, answer: dict[str, Any]) -> Trained | TrainingDiverged:
    if "diverged" in answer:
        return TrainingDiverged(*answer["diverged"])
    shape = {name: job.arguments[name] for name in _SHAPE if name in job.arguments}
    bundle = untrained(prepared, **shape)
    bundle.model.load_state_dict({name: torch.from_numpy(value) for name, value in answer["weights"].items()})
    bundle.model.eval()
    job.criterion.load_state(answer["criterion"])
    result = FitResult(model=bundle.model, **answer["result"])
    return replace(bundle, temperature=result.temperature), result
