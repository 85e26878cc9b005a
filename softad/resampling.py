"""Bootstrap resamples as counts: how often each row was drawn, in chunks that stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_CHUNK = 1 << 19
"""Cells (resamples times rows) held at a time: 4 MB of counts."""


def bootstrap_counts(rows: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.float64]]:
    """Chunks of shape ``(c, rows)``: in each line, how often a resample of `rows` rows drew each of them.

    The same seed gives the same resamples, so that figures of two models on the same rows can be paired.

    >>> chunks = list(bootstrap_counts(5, resamples=3, seed=0))
    >>> [chunk.sum(axis=1).tolist() for chunk in chunks]
    [[5.0, 5.0, 5.0]]

    Raises
    ------
    ValueError: `rows` or `resamples` is below 1.
    """
    for name, value in (("rows", rows), ("resamples", resamples)):
        if value < 1:
            raise ValueError(f"{name}: {value}; allowed: 1 or more")
    generator = np.random.Generator(np.random.SFC64(seed))
    together = max(1, min(resamples, _CHUNK // rows))
    done = 0
    while done < resamples:
        size = min(together, resamples - done)
        drawn = generator.integers(0, rows, size=(size, rows), dtype=np.int64)
        drawn += np.arange(size, dtype=np.int64)[:, None] * rows
        counts = np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows)
        yield counts.astype(np.float64)
        done += size
