"""The child process of `softad.together`: trains what comes over its line, until the line closes.

    python -P -m softad.training_process SOCKET

The line is a socket between parent and child that has no name; nobody else can reach it.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import fields
from multiprocessing.connection import Connection
from typing import Any


def answer_to(job: tuple[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """What comes of one job: weights as arrays and the rest of the result; where it diverged; or why it failed."""
    from softad.bundle import train_prepared
    from softad.loop import TrainingDiverged

    prepared, criterion, arguments = job
    try:
        bundle, result = train_prepared(prepared, criterion=criterion, **arguments)
    except TrainingDiverged as error:
        return {"diverged": (error.epoch, error.step, error.loss, error.what, error.row)}
    except Exception as error:  # the parent tries it too, and raises what it meets
        return {"failed": f"{type(error).__name__}: {error}"}
    return {
        "weights": {name: value.numpy() for name, value in bundle.model.state_dict().items()},
        "result": {part.name: getattr(result, part.name) for part in fields(result) if part.name != "model"},
        "criterion": criterion.state(),
    }


def main(handle: int) -> None:
    """Answer one job after the other; the end of the line is the end of the process, also within a training."""
    line = Connection(handle)

    def work(job: tuple[Any, Any, dict[str, Any]]) -> None:
        line.send(answer_to(job))

    while True:
        try:
            job = line.recv()
        except (EOFError, OSError):
            # Without clearing up: a training may be at work in the other thread.
            os._exit(0)
        threading.Thread(target=work, args=(job,), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]))
