"""What the tests of proposals share: a file that is saved, and what was said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.propose import Proposal

ROWS = 1200


def save(folder: Path, frame: pd.DataFrame, name: str = "parts.csv", **how: Any) -> Path:
    path = folder / name
    frame.to_csv(path, index=False, **how)
    return path


def said(proposal: Proposal, topic: str) -> str:
    return " ".join(note.text for note in proposal.notes if note.topic == topic)


def bad_of(frame: pd.DataFrame) -> np.ndarray:
    return np.asarray(frame.attrs["bad"])
