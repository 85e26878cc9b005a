"""What a life's twins came to, kept in a file: without it every look of a long life begins with all the looks before.

The file saves time and nothing else. Where it is missing, cannot be read, or is of other looks, the twins are worked
out from the start, with the same outcome to the last bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monitoring.ranks import Floats

MOST_FILES = 12
"""In one folder: of the present life, one for each label age, and of those before it."""


@dataclass(frozen=True)
class TwinState:
    """Twins after some looks.

    Attributes
    ----------
    left: (R,) of truth values: which have not alarmed.
    total: (s, R) sums of each score over all windows.
    """

    left: npt.NDArray[np.bool_]
    total: Floats


@dataclass(frozen=True)
class TwinMemory:
    """States of twins in a folder of their own, one file a life, which is overwritten by its next look.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     memory = TwinMemory(Path(name) / "twins")
    ...     state = TwinState(np.array([True, False]), np.array([[0.5, 1.5]]))
    ...     memory.keep({"seed": 0}, [(200, 3.5)], state)
    ...     recalled = memory.recall({"seed": 0}, [(200, 3.5)], shape=(1, 2))
    ...     other = memory.recall({"seed": 0}, [(200, 3.5), (180, 3.4)], shape=(1, 2))
    >>> recalled.left.tolist(), recalled.total.tolist(), other
    ([True, False], [[0.5, 1.5]], None)
    """

    folder: Path

    def recall(
        self, life: dict[str, Any], looks: Sequence[tuple[int, float | None]], shape: tuple[int, int]
    ) -> TwinState | None:
        """The state after just these looks, or None.

        Parameters
        ----------
        life: what the twins follow from, as JSON holds it.
        looks: (units, threshold) of each.
        shape: (s, R).
        """
        try:
            with self._path(life).open("rb") as file, np.load(file, allow_pickle=False) as kept:
                if str(kept["looks"]) != _digest(looks):
                    return None
                state = TwinState(kept["left"], kept["total"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # none yet, or one that is torn
            return None
        fits = state.total.shape == shape and state.left.shape == shape[1:]
        return state if fits and state.left.dtype == np.bool_ and state.total.dtype == np.float64 else None

    def keep(self, life: dict[str, Any], looks: Sequence[tuple[int, float | None]], state: TwinState) -> None:
        """Write the state after these looks; where the disk is full, nothing, for nothing is lost by it."""
        path = self._path(life)
        torn = path.with_suffix(f".{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with torn.open("wb") as file:
                np.savez(file, looks=np.array(_digest(looks)), left=state.left, total=state.total)
            torn.replace(path)
            # Also what a process that was killed had begun to write.
            by_age = sorted(self.folder.iterdir(), key=lambda each: each.stat().st_mtime)
            for old in by_age[:-MOST_FILES]:
                old.unlink(missing_ok=True)
        except OSError:
            with suppress(OSError):
                torn.unlink()

    def _path(self, life: dict[str, Any]) -> Path:
        return self.folder / f"{_digest(life)[:16]}.npz"


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
