"""What the scan is given, checked: finite losses, ids of their own, labels chosen with known probabilities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monitoring.ranks import Floats, checked_losses, jitter

Ids = Sequence[Any] | NDArray[Any]


@dataclass(frozen=True)
class Sample:
    """Rows of the reference or of a window that may be ranked.

    Attributes
    ----------
    losses: (n,).
    jitters: (n,) that part rows of equal loss.
    lots: (n,) or None.
    representative: rows were chosen for labelling with known probabilities, or all of them.
    where: "reference", or the window's name.
    least: probability of being kept, the same for every row; 1 where all rows were labelled.
    weeks: (n,) week of each row, or None.
    """

    losses: Floats
    jitters: Floats
    lots: NDArray[Any] | None
    representative: bool
    where: str
    least: float = 1.0
    weeks: NDArray[Any] | None = None

    @property
    def rows(self) -> int:
        """n."""
        return self.losses.size


def take(
    losses: ArrayLike,
    *,
    where: str,
    seed: int,
    ids: Ids | None = None,
    lots: Ids | None = None,
    probabilities: ArrayLike | None = None,
    least: float = 1.0,
    weeks: Ids | None = None,
) -> Sample:
    """Check rows, and thin them where some were more likely than others to be labelled.

    A row that was labelled with probability p is kept with probability (smallest p) / p, by a hash of its id: what
    is kept was chosen evenly. Weights would keep all rows, but they break the exactness of ranks.

    Parameters
    ----------
    losses: (n,).
    where: "reference" or the window's name, for sentences, and part of each row's jitter: ids need to differ within
        the reference and within a window only.
    seed: of the life.
    ids, lots, weeks: (n,) or None.
    probabilities: (n,) above 0 and up to 1, or NaN where unknown; None: all rows were labelled.
    least: smallest probability that is known from elsewhere (the reference's). A window in which, by chance, no row of
        the least suspicious kind was labelled is thinned by it all the same; it would look hard else.

    Raises
    ------
    ValueError: naming the row and what may stand there.

    >>> sample = take([0.1, 0.2, 0.9, 0.8], where="W1", seed=0, probabilities=[0.5, 0.5, 1.0, 1.0])
    >>> sample.losses, sample.representative
    (array([0.1, 0.2, 0.8]), True)
    """
    values = checked_losses(losses, f"losses of {where}")
    names = _checked_ids(ids, values.size, where)
    groups = None if lots is None else _of_length(lots, values.size, f"lots of {where}")
    periods = None if weeks is None else _of_length(weeks, values.size, f"weeks of {where}")
    if probabilities is None:
        return Sample(values, jitter(names, seed, where), groups, representative=True, where=where, weeks=periods)
    chance = np.asarray(_of_length(probabilities, values.size, f"probabilities of {where}"), dtype=np.float64)
    wrong = np.flatnonzero((chance <= 0) | (chance > 1))
    if wrong.size:
        raise ValueError(
            f"probabilities of {where}: row {wrong[0] + 1} is {chance[wrong[0]]}; a probability of being labelled is "
            "above 0 and at most 1, or NaN where it is not known"
        )
    if np.isnan(chance).any():
        return Sample(values, jitter(names, seed, where), groups, representative=False, where=where)
    keep, least = evenly(names, chance, where=where, seed=seed, least=least)
    kept = [name for name, stays in zip(names, keep, strict=True) if stays]
    return Sample(
        losses=values[keep],
        jitters=jitter(kept, seed, where),
        lots=None if groups is None else groups[keep],
        representative=True,
        where=where,
        least=least,
        weeks=None if periods is None else periods[keep],
    )


def evenly(
    ids: Ids, probabilities: Floats, *, where: str, seed: int, least: float = 1.0
) -> tuple[NDArray[np.bool_], float]:
    """Which rows stay when all are to have been chosen alike, and with which probability each was kept.

    Parameters
    ----------
    ids: (n,).
    probabilities: (n,) above 0 and up to 1.
    where, seed, least: as in `take`.

    >>> evenly(["a", "b"], np.array([0.5, 0.5]), where="reference", seed=0)
    (array([ True,  True]), 0.5)
    """
    least = float(probabilities.min(initial=least))
    return jitter(ids, seed, f"thin {where}") <= least / probabilities, least


def _checked_ids(ids: Ids | None, rows: int, where: str) -> list[str]:
    if ids is None:
        return [str(number) for number in range(rows)]
    names = [str(each) for each in _of_length(ids, rows, f"ids of {where}")]
    if len(set(names)) != rows:
        twice = next(name for name, times in Counter(names).items() if times > 1)
        raise ValueError(f"ids of {where}: {twice!r} is there twice; each row needs an id of its own")
    return names


def _of_length(values: Any, rows: int, what: str) -> NDArray[Any]:
    array = np.asarray(values)
    if array.shape != (rows,):
        raise ValueError(f"{what} have shape {array.shape}; there must be one for each of the {rows} losses")
    return array
