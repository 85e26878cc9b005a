"""The other detectors: what each computes in every window, and the threshold that it comes with.

All watch the rows' losses. Each gives a number a window that grows with the evidence of a change, so that the same
lives serve a detector as it comes and at any other threshold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from benchmarks.detection_lives import HORIZON, Array, first_true

CHUNKS = 10
LEAST_EXCESS = 1.10
"""Of the rule "two of the last five": a mean loss of so many times the reference's is over the threshold."""

DELTAS = (0.002, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6, 1e-8, 1e-12, 1e-20)
"""Confidence of ADWIN, from river's default down; it has no number that could be compared with a threshold."""

ADWIN_LIVES = 100
"""ADWIN goes row by row and once for each confidence, so that it gets the first so many lives only."""


@dataclass(frozen=True)
class Rival:
    """A detector of the benchmark.

    Attributes
    ----------
    name: in tables.
    key: of its statistic.
    threshold: that it comes with, for a reference and windows of so many rows; an alarm is at or above it.
    """

    name: str
    key: str
    threshold: float


def rivals(reference: int, rows: int, budget: float) -> list[Rival]:
    """All but ADWIN, as they come; the first is given the budget and shares it between the windows."""
    evidently = (
        Rival("Evidently, default column test", "ks", ks_limit(0.05, reference, rows))
        if reference <= 1000
        else Rival("Evidently, default column test", "wasserstein", 0.1)
    )
    return [
        Rival("KS with Bonferroni", "ks", ks_limit(budget / HORIZON, reference, rows)),
        evidently,
        Rival("mean ± 3 sd over ten chunks", "deviation", 3.0),
        Rival("two of the last five windows", "two_of_five", LEAST_EXCESS),
        Rival("Page-Hinkley", "page_hinkley", 50.0),
        Rival("every tenth window", "tenth", 0.0),
    ]


def ks_limit(level: float, reference: int, rows: int) -> float:
    """The distance at which the two-sample Kolmogorov-Smirnov test has this p-value, asymptotically as in SciPy."""
    effective = round(reference * rows / (reference + rows))
    return float(optimize.brentq(lambda d: stats.kstwo.sf(d, effective) - level, 1e-6, 1.0))


def rival_statistics(references: Array, windows: Array, rng: np.random.Generator) -> dict[str, Array]:
    """Every rival's number for each window, (looks, lives); of references (lives, n0), sorted,
    and windows (lives, looks, n)."""
    ordered = np.sort(windows, axis=2)
    means, base = windows.mean(axis=2), references.mean(axis=1)
    # Chunks of the reference in the order of arrival; it was sorted for the ranks, so its rows are drawn again.
    chunks = rng.permuted(references, axis=1)
    width = chunks.shape[1] // CHUNKS
    chunk_means = chunks[:, : CHUNKS * width].reshape(-1, CHUNKS, width).mean(axis=2)
    centre, spread = chunk_means.mean(axis=1), chunk_means.std(axis=1, ddof=1)
    excess = means / base[:, None]
    padded = np.concatenate([np.full((means.shape[0], 4), -np.inf), excess], axis=1)
    last_five = np.sort(np.lib.stride_tricks.sliding_window_view(padded, 5, axis=1), axis=2)
    tenth = np.full(means.shape, -np.inf)
    # At another threshold it still alarms every tenth window, in as many lives as a draw of its own says.
    tenth[:, 9::10] = rng.random((means.shape[0], 1))
    return {
        "ks": ks_distance(references, ordered).T,
        "wasserstein": wasserstein(references, ordered).T,
        "deviation": (np.abs(means - centre[:, None]) / spread[:, None]).T,
        "two_of_five": last_five[:, :, 3].T,
        "page_hinkley": page_hinkley(chunks, windows).T,
        "tenth": tenth.T,
    }


def ks_distance(references: Array, ordered: Array) -> Array:
    """Kolmogorov-Smirnov distance of each window (lives, looks, n), sorted, from its reference: (lives, looks)."""
    lives, looks, rows = ordered.shape
    found = np.empty((lives, looks))
    steps = np.arange(1, rows + 1) / rows
    for life in range(lives):
        level = np.searchsorted(references[life], ordered[life].ravel()).reshape(looks, rows) / references.shape[1]
        found[life] = np.maximum((steps - level).max(axis=1), (level - steps + 1 / rows).max(axis=1))
    return found


def wasserstein(references: Array, ordered: Array) -> Array:
    """First Wasserstein distance over the reference's standard deviation, (lives, looks); n must divide n0."""
    lives, looks, rows = ordered.shape
    if references.shape[1] % rows:
        raise ValueError(f"rows is {rows}; it must divide the reference's {references.shape[1]}")
    found = np.empty((lives, looks))
    for life in range(lives):
        parts = references[life].reshape(rows, -1)
        found[life] = [np.abs(window[:, None] - parts).mean() for window in ordered[life]]
    return found / np.maximum(references.std(axis=1), 0.001)[:, None]


def page_hinkley(references: Array, windows: Array, *, delta: float = 0.005, alpha: float = 0.9999) -> Array:
    """Largest value of river's two-sided Page-Hinkley test within each window, (lives, looks).

    The reference goes first, so that the running mean is known. An alarm within it does not count; river would begin
    again there, and this does not.
    """
    lives, looks, rows = windows.shape
    stream = np.ascontiguousarray(np.concatenate([references, windows.reshape(lives, -1)], axis=1).T)
    counted = np.arange(1, stream.shape[0] + 1)[:, None]
    deviations = stream - np.cumsum(stream, axis=0) / counted
    found = np.full((looks, lives), -np.inf)
    up, down = np.zeros(lives), np.zeros(lives)
    least, most = np.full(lives, np.inf), np.full(lives, -1.0)
    begin = references.shape[1]
    for row, deviation in enumerate(deviations):
        up = alpha * up + deviation - delta
        down = alpha * down + deviation + delta
        np.minimum(least, up, out=least)
        np.maximum(most, down, out=most)
        if row >= begin:
            look = (row - begin) // rows
            np.maximum(found[look], np.maximum(up - least, most - down), out=found[look])
    return found.T


def adwin_alarms(references: Array, windows: Array, lives: int = ADWIN_LIVES) -> Array:
    """First alarm of river's ADWIN in each life, for each of DELTAS: (deltas, lives), from 1; infinity for none.

    It learns on the reference, then goes through the windows row by row; any alarm counts, up or down.
    """
    return np.array([
        [_adwin(references[life], windows[life], delta) for life in range(min(lives, references.shape[0]))]
        for delta in DELTAS
    ])  # fmt: skip


def _adwin(reference: Array, windows: Array, delta: float) -> float:
    from river.drift import ADWIN

    detector = ADWIN(delta=delta)
    for loss in reference.tolist():
        detector.update(loss)
    for look, window in enumerate(windows.tolist(), start=1):
        for loss in window:
            detector.update(loss)
            if detector.drift_detected:
                return float(look)
    return np.inf


def alarms_at(statistic: Array, threshold: float) -> Array:
    """First window, from 1, at which each life is at or above a threshold: (lives,)."""
    return first_true(statistic >= threshold)


def equal_threshold(statistic: Array, rate: float) -> float:
    """The threshold at which as large a share of lives (looks, lives) alarms; infinity where that would be none."""
    highest = np.sort(statistic.max(axis=0))[::-1]
    alarms = round(rate * highest.size)
    return float(highest[alarms - 1]) if alarms else np.inf


def batches(lives: int, size: int) -> Iterator[int]:
    """Lives of each batch."""
    for begin in range(0, lives, size):
        yield min(size, lives - begin)
