"""What the candidates of a pilot study said of each judged row: which are hard or wrong, and what was learnt at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from softad.paired import Array, Difference, Ints, paired

WORTH = 0.3
"""A gain over a constant answer, as a share of its loss, that must be ruled out before nothing is there to learn."""

CONFIDENCE = 0.975
"""Of each bound: where ERM and the chosen one are both asked, about one noise in twenty is taken for learnt."""


@dataclass(frozen=True)
class Evidence:
    """Row by row, round by round.

    Attributes
    ----------
    rows: numbers of the judged rows in each round, as the caller counts them.
    clusters: in each round, which rows belong together.
    target: class numbers of the judged rows; of regression, values in units of the training rows' deviation.
    losses: candidate to its losses in each round, after temperature scaling.
    outputs: candidate to its outputs in each round (`softad.judging.Judged`).
    learnt: the mean loss of ERM, and of the one recommended, against that of a constant answer, as shares; and of
        classes, the balanced accuracy of a constant answer less that of ERM. Each is below 0 where something is learnt.
    """

    rows: tuple[Ints, ...]
    clusters: tuple[Ints, ...]
    target: tuple[npt.NDArray[Any], ...]
    losses: Mapping[str, tuple[Array, ...]]
    outputs: Mapping[str, tuple[npt.NDArray[np.float32], ...]]
    learnt: tuple[Difference, ...]

    @property
    def has_learnt(self) -> bool | None:
        """Whether some model is better than a constant answer beyond chance; None where the rounds are too few to tell.

        That nothing can be learnt is said only where a gain of `WORTH` is ruled out.
        """
        if not all(math.isfinite(one.error) for one in self.learnt):
            return None
        if any(one.bounds(CONFIDENCE)[1] < 0.0 for one in self.learnt):
            return True
        return None if any(one.bounds(CONFIDENCE)[0] < -WORTH for one in self.learnt) else False

    def learnt_document(self) -> dict[str, Any]:
        """The same for JSON."""
        low, high = self.learnt[0].bounds(CONFIDENCE)
        return {"value": self.learnt[0].value, "low": low, "high": high, "learnt": self.has_learnt}

    def row_means(self, values: Sequence[npt.NDArray[Any]]) -> tuple[Ints, npt.NDArray[np.float64]]:
        """Each judged row once, ascending, and the mean of its values over the rounds that judged it.

        Parameters
        ----------
        values: one array a round, shape (rows of the round, ...).

        >>> found = Evidence((np.array([0, 2]), np.array([2])), (), (), {}, {}, ())
        >>> [part.tolist() for part in found.row_means([np.array([1.0, 2.0]), np.array([4.0])])]
        [[0, 2], [1.0, 3.0]]
        """
        where, places = np.unique(np.concatenate(self.rows), return_inverse=True)
        together = np.concatenate(values).astype(np.float64)
        total = np.zeros((where.size, *together.shape[1:]))
        np.add.at(total, places, together)
        counts = np.bincount(places).reshape(-1, *[1] * (together.ndim - 1))
        return where.astype(np.int64), total / counts

    def hard_rows(self, share: float = 0.1) -> Ints:
        """The judged rows with the largest loss on average over all candidates, ascending.

        Of all, so that no candidate chooses the rows that it is then compared on.
        """
        every = [np.mean(together, axis=0) for together in zip(*self.losses.values(), strict=True)]
        where, losses = self.row_means(every)
        count = max(round(share * where.size), 1)
        return np.sort(where[np.argsort(-losses, kind="stable")[:count]])

    def difference_on(
        self, members: Ints, candidate: Sequence[npt.NDArray[Any]], baseline: Sequence[npt.NDArray[Any]]
    ) -> Difference | None:
        """The mean difference of two candidates' row values on some of the rows; None where too few rounds have any.

        Parameters
        ----------
        members: row numbers.
        candidate, baseline: one array a round, shape (rows of the round,).
        """
        inside = [np.isin(part, members) for part in self.rows]
        kept = [number for number, one in enumerate(inside) if one.any()]
        if not kept:
            return None
        return paired(
            [candidate[n][inside[n]].astype(np.float64) for n in kept],
            [baseline[n][inside[n]].astype(np.float64) for n in kept],
            [self.clusters[n][inside[n]] for n in kept],
        )
