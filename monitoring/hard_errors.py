"""Errors on the hard rows, of the model in use and of ordinary training: no rescaling of probabilities moves them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from softad.recall import reject_threshold

HARD_SHARE = 0.1
"""Hard is this share of the rows: those with the largest loss on average over both models, which favours neither."""


@dataclass(frozen=True)
class HardErrors:
    """How many of the hard rows each model gets wrong.

    Attributes
    ----------
    rows: hard rows.
    errors: of the model in use.
    plain_errors: of ordinary training; None where it did not judge these rows.
    only: rows that the model in use alone gets wrong; `plain_only` those that ordinary training alone does.
    rate: share of false rejects at which both are judged; None where no class is the good one.
    """

    rows: int
    errors: int
    plain_errors: int | None = None
    only: int = 0
    plain_only: int = 0
    rate: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @property
    def difference(self) -> tuple[float, float, float]:
        """Share of errors less that of ordinary training on the same rows, with its interval of 95 %.

        >>> value, low, high = HardErrors(200, 60, 70, only=5, plain_only=15).difference
        >>> round(value, 3), round(low, 3), round(high, 3)
        (-0.05, -0.093, -0.007)
        """
        value = (self.only - self.plain_only) / self.rows
        apart = max(self.only + self.plain_only - self.rows * value**2, 0.0)
        half = 1.96 * math.sqrt(apart) / self.rows
        return value, value - half, value + half


def wrong_at(scores: npt.ArrayLike, good: npt.ArrayLike, rate: float) -> npt.NDArray[np.bool_]:
    """Which rows are wrong where at most a share `rate` of the good ones is rejected.

    Parameters
    ----------
    scores: shape (n,); the larger the more suspicious.
    good: shape (n,), whether the part is good; at least one is.

    >>> wrong_at([0.1, 0.2, 0.9, 0.3, 0.05], [True, True, True, False, False], 0.4).tolist()
    [False, False, True, False, True]
    """
    values, fine = np.asarray(scores, dtype=np.float64), np.asarray(good, dtype=bool)
    return np.asarray((values > reject_threshold(values[fine], rate)) == fine)


def hard_errors(
    losses: npt.ArrayLike,
    wrong: npt.ArrayLike,
    plain_losses: npt.ArrayLike | None = None,
    plain_wrong: npt.ArrayLike | None = None,
    *,
    rate: float | None = None,
) -> HardErrors:
    """Count the errors on the hard rows.

    Parameters
    ----------
    losses, wrong: shape (n,), of the model in use; n at least 1.
    plain_losses, plain_wrong: shape (n,), of ordinary training on the same rows; None where it did not judge them.

    >>> hard_errors([9.0] + [0.1] * 9, [True] + [False] * 9, [8.0] + [0.1] * 9, [False] * 10)
    HardErrors(rows=1, errors=1, plain_errors=0, only=1, plain_only=0, rate=None)
    """
    own, missed = np.asarray(losses, dtype=np.float64), np.asarray(wrong, dtype=bool)
    both = plain_losses is not None and plain_wrong is not None
    level = own + np.asarray(plain_losses, dtype=np.float64) if both else own
    hard = np.argsort(-level, kind="stable")[: math.ceil(HARD_SHARE * own.size)]
    missed = missed[hard]
    if not both:
        return HardErrors(int(hard.size), int(missed.sum()), rate=rate)
    other = np.asarray(plain_wrong, dtype=bool)[hard]
    return HardErrors(
        int(hard.size), int(missed.sum()), int(other.sum()), int((missed & ~other).sum()), int((other & ~missed).sum()),
        rate,
    )  # fmt: skip


def together(windows: Iterable[HardErrors]) -> HardErrors | None:
    """The windows that both models judged, as one, at the newest one's share of false rejects; None without any.

    >>> together([HardErrors(10, 4, 5, 0, 1), HardErrors(10, 2), HardErrors(30, 3, 3)])
    HardErrors(rows=40, errors=7, plain_errors=8, only=0, plain_only=1, rate=None)
    >>> together([HardErrors(10, 4, 5, 0, 1, 0.05), HardErrors(30, 3, 3, rate=0.01)]).rows
    30
    """
    judged = [one for one in windows if one.plain_errors is not None]
    if not judged:
        return None
    known = [one for one in judged if one.rate == judged[-1].rate]
    return HardErrors(
        sum(one.rows for one in known), sum(one.errors for one in known), sum(one.plain_errors or 0 for one in known),
        sum(one.only for one in known), sum(one.plain_only for one in known), known[-1].rate,
    )  # fmt: skip
