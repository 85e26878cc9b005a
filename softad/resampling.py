"""The bootstrap over rows: draws with replacement a block of rows at a time, and the sums that figures need of them.

The law is the ordinary one: a resample of n rows is n independent uniform draws, so its counts are
``Multinomial(n; 1/n, .., 1/n)``. Beyond one block, how many draws fall on each block is drawn first,
``Multinomial(n; size / n)``, then that many independent uniform draws within the block; a multinomial law
splits that way, so nothing is approximated. What is gained is that every look-up stays in the processor's cache and
memory does not grow with the rows. Draws are counted only where their order matters (in the tail); elsewhere their
values are summed as drawn. No product runs on a linear algebra library's threads, so that a seed gives the same
digits however many threads there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

BLOCK = 1 << 16
"""Rows in a block: as many as 16 random bits tell apart, and few enough for the cache."""


class Draws(NamedTuple):
    """Draws on the rows ``start .. start + size - 1`` in c resamples: numbers within the block, shape (c, m)."""

    start: int
    size: int
    drawn: npt.NDArray[np.intp]


class Sums(NamedTuple):
    """Sums over the draws of each of c resamples.

    Attributes
    ----------
    columns: shape (k, c), the sum of each column.
    tail: shape (c,), the sum of the largest values, the last one as far as the tail reaches.
    ranked: shape (c,), the sum of value times (draws below it less draws above it), for the Gini coefficient; zeros
        unless asked for.
    """

    columns: Array
    tail: Array
    ranked: Array


def resamples_of(rows: int, resamples: int, seed: int, block: int = BLOCK) -> Iterator[Iterator[Draws]]:
    """Batches of bootstrap resamples, each batch as its draws block by block; take the blocks in turn.

    Parameters
    ----------
    rows: how many rows, n; each resample draws as many.
    resamples: how many in all. With one block a batch holds several, with more blocks it holds one.
    seed: 0 or more; the same seed gives the same draws.
    block: rows in a block.

    >>> [[draws.drawn.shape for draws in batch] for batch in resamples_of(5, resamples=3, seed=0)]
    [[(3, 5)]]
    >>> sum(draws.drawn.size for batch in resamples_of(5, resamples=1, seed=0, block=2) for draws in batch)
    5

    Raises
    ------
    ValueError: `rows`, `resamples` or `block` is below 1, or `seed` below 0.
    """
    for name, value, least in (("rows", rows, 1), ("resamples", resamples, 1), ("block", block, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name}: {value}; allowed: {least} or more")
    generator = np.random.Generator(np.random.SFC64(seed))
    together = max(1, 2 * BLOCK // rows) if rows <= block else 1
    for done in range(0, resamples, together):
        yield _batch(rows, min(together, resamples - done), generator, block)


def _batch(rows: int, together: int, generator: np.random.Generator, block: int) -> Iterator[Draws]:
    starts = np.arange(0, rows, block)
    sizes = np.minimum(block, rows - starts)
    totals = generator.multinomial(rows, sizes / rows) if starts.size > 1 else np.array([rows])
    for start, size, total in zip(starts.tolist(), sizes.tolist(), totals.tolist(), strict=True):
        if size == 1 << 16:
            # All values of 16 bits are rows: a quarter of the random bits, and none is rejected.
            drawn = generator.integers(0, size, size=(together, total), dtype=np.uint16).astype(np.intp)
        else:
            drawn = generator.integers(0, size, size=(together, total), dtype=np.intp)
        yield Draws(start, size, drawn)


def sums_of(values: Array, columns: Array, blocks: Iterable[Draws], tail: float, *, ranks: bool = False) -> Sums:
    """The sums of the draws that `blocks` hold.

    Parameters
    ----------
    values: shape (n,), in descending order.
    columns: shape (k, n), further numbers of the same rows, summed as they are.
    blocks: the draws, in the order of the rows.
    tail: how many draws the tail holds, above 0; a fraction counts for part of one.
    ranks: sum the ranks too.

    >>> once = [Draws(0, 3, np.array([[0, 0, 2]]))]
    >>> found = sums_of(np.array([5.0, 2.0, 1.0]), np.array([[1.0, 2.0, 3.0]]), once, tail=2.5)
    >>> found.columns.tolist(), found.tail.tolist()
    ([[5.0]], [10.5])
    """
    rows = values.size
    above = 0.0
    sums = np.zeros((len(columns), 1))
    tails = np.zeros(1)
    ranked = np.zeros(1)
    for start, size, drawn in blocks:
        within = slice(start, start + size)
        if ranks or above < tail:
            counts = _counts(drawn, size)
            sums = sums + np.stack([_dot(counts, column[within]) for column in columns])
            if above < tail:
                tails = tails + _largest(values[within], counts, tail - above)
            if ranks:
                # In descending order draws a+1..b of one value v add v * (b - a) * (n - a - b) to the rank sum.
                after = np.cumsum(counts, axis=1) + above
                ranked = ranked + _dot(counts * (rows - 2.0 * after + counts), values[within])
        else:
            sums = sums + np.stack([column[within].take(drawn).sum(axis=1) for column in columns])
        above += drawn.shape[1]
    many = tails.size
    return Sums(np.broadcast_to(sums, (len(columns), many)), tails, np.broadcast_to(ranked, many))


def bootstrap_sums(
    values: Array, columns: Array, tail: float, resamples: int, seed: int, *, ranks: bool = False
) -> tuple[Sums, Sums]:
    """The sums of the rows as they are, c = 1, and of bootstrap resamples, c = `resamples`; arguments as `sums_of`.

    >>> plain, drawn = bootstrap_sums(np.array([2.0, 1.0]), np.ones((1, 2)), 1.0, resamples=50, seed=0)
    >>> plain.columns.tolist(), plain.tail.tolist(), drawn.columns.shape, set(drawn.tail.tolist()) == {1.0, 2.0}
    ([[2.0]], [2.0], (1, 50), True)

    Raises
    ------
    ValueError: as `resamples_of`.
    """
    rows = values.size
    sizes = [(start, min(BLOCK, rows - start)) for start in range(0, rows, BLOCK)]
    once = (Draws(start, size, np.arange(size)[None, :]) for start, size in sizes)
    plain = sums_of(values, columns, once, tail, ranks=ranks)
    parts = [sums_of(values, columns, blocks, tail, ranks=ranks) for blocks in resamples_of(rows, resamples, seed)]
    return plain, Sums(*(np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)))


def percentiles(drawn: Array, confidence: float) -> tuple[Array, Array]:
    """The ends of percentile intervals, over the last axis of `drawn`.

    >>> low, high = percentiles(np.arange(101.0), 0.9)
    >>> round(float(low)), round(float(high))
    (5, 95)

    Raises
    ------
    ValueError: `confidence` outside (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: {confidence!r}; allowed: (0, 1)")
    low, high = np.quantile(drawn, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0], axis=-1)
    return low, high


def _counts(drawn: npt.NDArray[np.intp], size: int) -> Array:
    many = len(drawn)
    cells = drawn if many == 1 else drawn + np.arange(many)[:, None] * size
    return np.bincount(cells.ravel(), minlength=many * size).reshape(many, size).astype(np.float64)


def _dot(counts: Array, values: Array) -> Array:
    return np.asarray(np.einsum("cn,n->c", counts, values), dtype=np.float64)


def _largest(values: Array, counts: Array, most: float) -> Array:
    """The sum of the `most` largest draws, or of all. Only as many values are looked at as those can reach."""
    reach = min(values.size, math.ceil(most + 8.0 * math.sqrt(most) + 16.0))
    while True:
        drawn = np.cumsum(counts[:, :reach], axis=1)
        if reach == values.size or drawn[:, -1].min() >= most:
            break
        reach = min(values.size, 2 * reach)
    # Each value's weight is the part of its draws that still lies within the tail.
    within = np.minimum(drawn, most)
    within[:, 1:] -= within[:, :-1].copy()
    return _dot(within, values[:reach])
