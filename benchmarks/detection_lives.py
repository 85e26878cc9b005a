"""Lives of the scan in bulk: many lives beside each other, on the ranks, with the scan's own functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from monitoring.effect import figures_of, smallest_relevant
from monitoring.lives import SCALES, History, TwinLives, components
from monitoring.ranks import bin_ends, scores_of
from softad.simulation_losses import LossLaw

Array = NDArray[np.float64]

HORIZON = 52
"""Windows of a life."""

CHANGE_AT = 26
"""The window, from 1, that a change touches first."""


def spacings_of(reference: int) -> NDArray[np.int64]:
    """Spacings in each of the b bins, for a reference of so many units."""
    return np.diff(bin_ends(reference), prepend=0, append=reference + 1)


def thresholds(
    reference: int, rows: Sequence[int], budget: float, *, lives: int, seed: int, horizon: int = HORIZON
) -> Array:
    """The thresholds that every real life with these windows meets, (looks,); they do not depend on its losses."""
    return _thresholds(reference, tuple(rows), budget, lives, seed, horizon)


@cache
def _thresholds(reference: int, rows: tuple[int, ...], budget: float, lives: int, seed: int, horizon: int) -> Array:
    spacings = spacings_of(reference)
    twins = TwinLives(spacings, scores_of(spacings), lives=lives, seed=seed, horizon=horizon)
    found = []
    for look, units in enumerate(rows, start=1):
        threshold = twins.threshold(units, budget * look / horizon)
        twins.advance(units, threshold)
        found.append(np.inf if threshold is None else threshold)
    return np.array(found)


def unchanged_counts(reference: int, rows: Sequence[int], lives: int, rng: np.random.Generator) -> Array:
    """Rows in each bin while nothing changes, (looks, b, lives): the same law for every continuous loss."""
    spacings = spacings_of(reference)
    probabilities = rng.dirichlet(spacings.astype(np.float64), size=lives)
    return np.array([rng.multinomial(units, probabilities).T for units in rows], dtype=np.float32)


def statistics(reference: int, counts: Array, *, horizon: int = HORIZON) -> dict[int, Array]:
    """The scan's statistic of each scale, (looks, lives) each, -inf where there are not yet so many windows.

    Their maximum is the scan's statistic.
    """
    scores = scores_of(spacings_of(reference))
    looks, _, lives = counts.shape
    found = {scale: np.full((looks, lives), -np.inf) for scale in SCALES}
    history = History(total=np.zeros((len(scores.names), lives)))
    for look, now in enumerate(counts):
        history = history.then(scores.values @ now.astype(np.float64), int(now[:, 0].sum()))
        for part in components(history, scores, reference_rows=reference, horizon=horizon):
            highest = part.values.max(axis=0)
            found[part.windows][look] = np.maximum(found[part.windows][look], highest)
    return found


def relevant(counts: Array, sums: Array, edges: Array, first: Array, spacings: NDArray[np.int64], effect: float) -> (
    dict[int, NDArray[np.bool_]]
):  # fmt: skip
    """Whether the last k windows reach the smallest relevant effect, for each scale k, (looks, lives).

    Parameters
    ----------
    counts, sums: (looks, b, lives) rows and losses in each bin.
    edges: (b - 1, lives).
    first: (2, b, lives) the reference's rows and losses in each bin.
    """
    reference = figures_of(first[0].T, first[1].T, edges.T, spacings)
    total, below = spacings.sum(), np.cumsum(spacings)
    places = [int(np.searchsorted(below, round(total * level))) + 1 for level in (0.9, 0.99)]
    expected = [reference[0], reference[1], *(spacings[place:].sum() / total for place in places)]
    least = smallest_relevant(effect)
    wanted = (least.mean, least.tail, least.hard, least.hardest)
    found = {}
    for scale in SCALES:
        rolled = []
        for values in (counts, sums):
            running = np.cumsum(values, axis=0, dtype=np.float64)
            running[scale:] -= running[:-scale].copy()
            rolled.append(np.moveaxis(running, 1, 2))
        now = figures_of(rolled[0], rolled[1], edges.T[None], spacings)
        found[scale] = np.any(
            [each / base >= need for each, base, need in zip(now, expected, wanted, strict=True)], axis=0
        )
    return found


def first_alarm(found: dict[int, Array], limits: Array, matter: dict[int, NDArray[np.bool_]] | None = None) -> Array:
    """The look, from 1, at which each life alarms; infinity for one that does not, (lives,)."""
    alarms = np.zeros(next(iter(found.values())).shape, dtype=bool)
    for scale, values in found.items():
        over = values > limits[:, None]
        alarms |= over if matter is None else over & matter[scale]
    return first_true(alarms)


def first_true(alarms: NDArray[np.bool_]) -> Array:
    """Place, from 1, of the first True along the first axis; infinity where there is none."""
    return np.where(alarms.any(axis=0), alarms.argmax(axis=0) + 1.0, np.inf)


@dataclass(frozen=True)
class Ranked:
    """What the scan keeps of lives whose losses were drawn.

    Attributes
    ----------
    counts, sums: (looks, b, lives).
    edges: (b - 1, lives).
    first: (2, b, lives) the reference's own.
    """

    counts: Array
    sums: Array
    edges: Array
    first: Array

    @classmethod
    def together(cls, parts: Sequence[Ranked]) -> Ranked:
        """Lives of several batches beside each other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts], axis=-1)
                     for name in ("counts", "sums", "edges", "first")))  # fmt: skip


def ranked(references: Array, windows: Array) -> Ranked:
    """References (lives, n0), sorted, and windows (lives, looks, n) of continuous losses, in bins."""
    lives, reference = references.shape
    looks, rows = windows.shape[1:]
    ends = bin_ends(reference)
    bins = ends.size + 1
    edges = references[:, ends - 1]
    counts = np.empty((looks, bins, lives), dtype=np.float32)
    sums = np.empty((looks, bins, lives), dtype=np.float32)
    first = np.empty((2, bins, lives))
    base = np.repeat(np.arange(looks) * bins, rows)
    starts = np.concatenate([[0], ends])
    for life in range(lives):
        losses = windows[life].ravel()
        places = base + np.searchsorted(edges[life], losses, side="left")
        counts[:, :, life] = np.bincount(places, minlength=looks * bins).reshape(looks, bins)
        sums[:, :, life] = np.bincount(places, weights=losses, minlength=looks * bins).reshape(looks, bins)
        inside = np.searchsorted(edges[life], references[life], side="left")
        first[0, :, life] = np.bincount(inside, minlength=bins)
        first[1, :, life] = np.add.reduceat(references[life], np.minimum(starts, reference - 1))
    return Ranked(counts, sums, edges.T.copy(), first)


def draw_lives(
    reference: int, rows: int, lives: int, rng: np.random.Generator, *, law_at: Callable[[int], LossLaw],
    before: LossLaw, horizon: int = HORIZON,
) -> tuple[Array, Array]:  # fmt: skip
    """Losses: references (lives, n0), sorted, and windows (lives, horizon, rows); `law_at` of the window from 1."""
    references = np.sort(before.draw(lives * reference, rng).reshape(lives, reference), axis=1)
    windows = np.empty((lives, horizon, rows))
    for window in range(1, horizon + 1):
        windows[:, window - 1] = law_at(window).draw(lives * rows, rng).reshape(lives, rows)
    return references, windows
