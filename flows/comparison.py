"""What a gate compares and what it says: two models on the same held-out rows, the margins, one gate's verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

MIN_CLASS_ROWS = 30
"""A defect class with fewer held-out rows is reported and not gated: its interval would be wider than any margin."""


@dataclass(frozen=True)
class Margins:
    """How much worse a challenger may be, and how sure one must be that it is not worse than that.

    Attributes
    ----------
    mean, tail, stability, slices: share of the champion's figure.
    recall: difference of shares (0.01 is one point).
    confidence: of every one-sided limit.
    resamples: bootstrap resamples; fewer are drawn where the held-out rows are very many.

    >>> Margins(confidence=1.2)
    Traceback (most recent call last):
    ...
    ValueError: confidence must be in (0.5, 1), not 1.2
    """

    mean: float = 0.02
    tail: float = 0.05
    stability: float = 0.05
    recall: float = 0.01
    slices: float = 0.10
    confidence: float = 0.95
    resamples: int = 2_000
    min_rows: int = 100
    min_slice_rows: int = 200
    min_class_rows: int = MIN_CLASS_ROWS

    def __post_init__(self) -> None:
        if not 0.5 < self.confidence < 1:
            raise ValueError(f"confidence must be in (0.5, 1), not {self.confidence}")
        if self.resamples < 200:
            raise ValueError(f"resamples must be at least 200, not {self.resamples}")


@dataclass(frozen=True)
class Gate:
    """One condition on a challenger, and what was found.

    Attributes
    ----------
    name: "mean", "tail", "stability", "recall: scratch", "slice machine=M07", …
    figure: the difference, challenger against champion; relative for losses, in shares for recall and misses.
    low, high: one-sided limits of the difference at the stated confidence; None where nothing was resampled.
    margin: the worst difference that may not be excluded.
    passed: whether the condition holds; always true where it is reported only.
    gated: false where it is reported only.
    rows: held-out rows that speak to it.
    reason: the same in a sentence.
    """

    name: str
    figure: float | None
    low: float | None
    high: float | None
    margin: float | None
    passed: bool
    reason: str
    gated: bool = True
    rows: int = 0


@dataclass(frozen=True)
class Comparison:
    """What champion and challenger say of the same held-out rows.

    Parameters
    ----------
    champion_losses, challenger_losses: shape (n,), base losses.
    labels: shape (n,), class as text; None for regression.
    classes: the order of the columns of the probabilities.
    normal: the class of good rows, or None where every class is a kind of its own.
    champion_probabilities, challenger_probabilities: shape (n, k); None for regression.
    champion_errors, challenger_errors: shape (n,), absolute errors in the label's unit; None for classification.
    tolerance: an error above it is a miss; None takes the champion's 0.9 quantile.
    groups: shape (n,), rows that are not independent of each other share a group; None where all are independent.
    slices: column name -> values, shape (n,), of the protected slices.
    """

    champion_losses: np.ndarray
    challenger_losses: np.ndarray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    normal: str | None = None
    champion_probabilities: np.ndarray | None = None
    challenger_probabilities: np.ndarray | None = None
    champion_errors: np.ndarray | None = None
    challenger_errors: np.ndarray | None = None
    tolerance: float | None = None
    groups: np.ndarray | None = None
    slices: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = len(self.champion_losses)
        columns = {name: getattr(self, name) for name in self.__dataclass_fields__} | dict(self.slices)
        for name, values in columns.items():
            if isinstance(values, np.ndarray) and len(values) != rows:
                raise ValueError(f"{name} has {len(values)} rows, champion_losses has {rows}; they must be the same")
