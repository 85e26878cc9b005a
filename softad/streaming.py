"""Figures of losses that come in chunks and are too many to hold: one pass, bounded memory, a stated error.

Count, mean and standard deviation are exact up to rounding: moments of chunks are joined as in Chan, Golub and LeVeque,
"Algorithms for computing the sample variance" (1983). Tails, top share and Gini come from a histogram on a logarithmic
scale that keeps the count *and the sum* of every bin (a bin is 2^-b of its power of two wide), so that only the one
bin that a tail cuts through is ever estimated. Plain addition of bins merges two histograms: the result depends on the
order of chunks, and on which machine saw which, only through rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from softad.curves import check_level

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

SMALLEST, LARGEST = 2.0**-40, 1e100
"""Losses below the first share one bin; losses above the second are refused, since their squares come near overflow."""

_AT_A_TIME = 1 << 18
_MANTISSA = 52


@dataclass(frozen=True)
class StreamedFigures:
    """The figures of all losses seen.

    Attributes
    ----------
    rows: how many.
    mean, stability: mean and standard deviation, exact up to rounding.
    smallest, largest: exact.
    tails: level to CVaR, each off by at most `relative_error` times itself, plus 2^-40 (about 1e-12).
    top_share: share of the total loss that the worst tenth of rows carries; the same error.
    gini: Gini coefficient, too small by at most a quarter of `relative_error`, an absolute error.
    relative_error: that was asked for; 2^-b, the relative width of a bin, is at most that.
    """

    rows: int
    mean: float
    stability: float
    smallest: float
    largest: float
    tails: Mapping[float, float]
    top_share: float
    gini: float
    relative_error: float


class StreamingFigures:
    """The figures of losses that come in chunks; made for tens of millions of rows, without intervals.

    Memory is that of the bins between 1e-12 and the largest loss: about 50 octaves of 2^b bins of 16 bytes, 200 kB at
    the default, and at most 1.6 MB with losses up to 1e100; it does not grow with the rows. An instance can be pickled,
    or kept as JSON (`to_dict`).

    Parameters
    ----------
    relative_error: of tails and top share, in [2^-12, 1/2]; bins are made 2^-b wide, the next power of two below.

    >>> seen = StreamingFigures()
    >>> for chunk in ([0.0, 1.0], [2.0, 5.0]):
    ...     seen.update(chunk)
    >>> figures = seen.result(levels=[0.5])
    >>> figures.rows, figures.mean, figures.tails, figures.gini
    (4, 2.0, {0.5: 3.5}, 0.5)

    Raises
    ------
    ValueError: `relative_error` is out of its range.
    """

    def __init__(self, relative_error: float = 2.0**-8) -> None:
        if not 2.0**-12 <= relative_error <= 0.5:
            raise ValueError(f"relative_error: {relative_error!r}; allowed: [2^-12, 0.5]")
        self.relative_error = float(relative_error)
        self._shift = _MANTISSA - math.ceil(-math.log2(relative_error))
        self._lowest = int(_pattern(np.array([SMALLEST]))[0] >> self._shift)
        self._rows = 0
        self._mean = 0.0
        self._squares = 0.0
        self._smallest, self._largest = math.inf, -math.inf
        # Bin 0 is below SMALLEST; the arrays reach as far as the largest loss so far.
        self._counts: Counts = np.zeros(1, dtype=np.int64)
        self._sums: Array = np.zeros(1)

    @property
    def rows(self) -> int:
        """How many losses were seen."""
        return self._rows

    def update(self, losses: npt.ArrayLike) -> None:
        """See a chunk of losses.

        Parameters
        ----------
        losses: shape (n,), any n, in [0, 1e100]; nothing of the chunk is seen if one of them is not.

        >>> seen = StreamingFigures()
        >>> seen.update([]); seen.update([0.5]); seen.rows
        1

        Raises
        ------
        ValueError: `losses` is not one-dimensional, or one is negative, too large or not a number.
        """
        data = np.asarray(losses)
        if data.ndim != 1:
            raise ValueError(f"losses: shape {data.shape}; allowed: (n,), one loss a row")
        parts = range(0, data.size, _AT_A_TIME)
        for start in parts:
            part = data[start : start + _AT_A_TIME].astype(np.float64)
            fits = (part >= 0.0) & (part <= LARGEST)
            if not fits.all():
                row = int((~fits).argmax())
                raise ValueError(f"losses: {part[row]} at row {start + row}; allowed: [0, {LARGEST:g}]")
        for start in parts:
            self._see(data[start : start + _AT_A_TIME].astype(np.float64))

    def merge(self, other: StreamingFigures) -> None:
        """See all that `other` has seen, which stays as it is.

        >>> one, two = StreamingFigures(), StreamingFigures()
        >>> one.update([1.0]); two.update([3.0]); one.merge(two)
        >>> one.rows, one.result().mean
        (2, 2.0)

        Raises
        ------
        ValueError: `other` has bins of another width.
        """
        if other._shift != self._shift:
            raise ValueError(f"other: relative_error {other.relative_error!r}; allowed: bins of the same width as here")
        self._join(other._rows, other._mean, other._squares, other._smallest, other._largest)
        self._add(other._counts, other._sums)

    def result(self, levels: Sequence[float] = (0.9, 0.95, 0.99)) -> StreamedFigures:
        """The figures of all losses seen so far.

        Parameters
        ----------
        levels: of the tails, each in [0, 1).

        Raises
        ------
        ValueError: nothing was seen yet, or a level is out of its range.

        >>> seen = StreamingFigures()
        >>> seen.update([2.0] * 10)
        >>> seen.result().tails[0.9], seen.result().top_share, seen.result().stability
        (2.0, 0.1, 0.0)
        """
        if self._rows == 0:
            raise ValueError("rows: 0 seen; allowed: 1 or more before the figures")
        for level in levels:
            check_level(level, "levels")
        # From the largest bin down.
        full = np.flatnonzero(self._counts)[::-1]
        counts, sums = self._counts[full].astype(np.float64), self._sums[full]
        low, high = (np.clip(edge, self._smallest, self._largest) for edge in self._edges(full))
        means = np.clip(sums / counts, low, high)
        total = float(sums.sum())
        before = np.concatenate([[0.0], np.cumsum(counts)])
        above = np.concatenate([[0.0], np.cumsum(sums)])

        def largest(rows: float) -> float:
            """The sum of so many of the largest losses."""
            cut = min(int(np.searchsorted(before, rows, side="right")) - 1, counts.size - 1)
            part = min((rows - before[cut]) / counts[cut], 1.0)
            # As if the losses of the cut bin lay evenly around its mean; anything between mean and edge is in bounds.
            half = min(means[cut] - low[cut], high[cut] - means[cut])
            return float(above[cut] + part * counts[cut] * (means[cut] + half * (1.0 - part)))

        # Within a bin all losses are taken as equal: c draws with a before and b after them have c * (b - a) rank sum.
        ranked = float(np.sum(sums * (self._rows - 2.0 * before[:-1] - counts)))
        tails = {float(level): largest((1.0 - level) * self._rows) / ((1.0 - level) * self._rows) for level in levels}
        return StreamedFigures(
            rows=self._rows,
            mean=self._mean,
            stability=math.sqrt(self._squares / self._rows),
            smallest=self._smallest,
            largest=self._largest,
            tails=tails,
            top_share=largest(0.1 * self._rows) / total if total > 0.0 else 0.0,
            gini=max(ranked / self._rows / total, 0.0) if total > 0.0 else 0.0,
            relative_error=self.relative_error,
        )

    def to_dict(self) -> dict[str, Any]:
        """All that was seen, as plain numbers and lists for JSON; only bins that hold rows, so at most some 10,000s.

        >>> sorted(StreamingFigures().to_dict())
        ['bins', 'counts', 'largest', 'mean', 'relative_error', 'rows', 'smallest', 'squares', 'sums']
        """
        full = np.flatnonzero(self._counts)
        return {
            "relative_error": self.relative_error,
            "rows": self._rows,
            "mean": self._mean,
            "squares": self._squares,
            "smallest": self._smallest if self._rows else None,
            "largest": self._largest if self._rows else None,
            "bins": full.tolist(),
            "counts": self._counts[full].tolist(),
            "sums": self._sums[full].tolist(),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> StreamingFigures:
        """What `to_dict` gave.

        >>> seen = StreamingFigures()
        >>> seen.update([0.1, 0.7])
        >>> StreamingFigures.from_dict(seen.to_dict()).result() == seen.result()
        True

        Raises
        ------
        ValueError: a key is missing, or the document contradicts itself.
        """
        missing = sorted(set(cls().to_dict()) - set(document))
        if missing:
            raise ValueError(f"document: without {', '.join(missing)}; allowed: what to_dict gave")
        made = cls(document["relative_error"])
        bins = np.asarray(document["bins"], dtype=np.intp)
        counts = np.asarray(document["counts"], dtype=np.int64)
        sums = np.asarray(document["sums"], dtype=np.float64)
        most = int(made._bins(np.array([LARGEST]))[0])
        sound = bins.ndim == 1 and bins.shape == counts.shape == sums.shape and counts.sum() == document["rows"]
        if not sound or (bins.size and not (bins.min() >= 0 and bins.max() <= most and counts.min() > 0)):
            raise ValueError("document: bins, counts, sums and rows contradict each other; allowed: what to_dict gave")
        if bins.size:
            made._join(*(document[name] for name in ("rows", "mean", "squares", "smallest", "largest")))
            made._counts = np.bincount(bins, weights=counts).astype(np.int64)
            made._sums = _sums(bins, sums)
        return made

    def _see(self, part: Array) -> None:
        mean = float(part.mean())
        squares = float(np.square(part - mean).sum())
        self._join(part.size, mean, squares, float(part.min()), float(part.max()))
        member = self._bins(part)
        self._add(np.bincount(member).astype(np.int64), _sums(member, part))

    def _join(self, rows: int, mean: float, squares: float, smallest: float, largest: float) -> None:
        if rows == 0:
            return
        together = self._rows + rows
        apart = mean - self._mean
        self._squares += squares + apart * apart * (self._rows / together * rows)
        self._mean += apart * (rows / together)
        self._rows = together
        self._smallest, self._largest = min(self._smallest, smallest), max(self._largest, largest)

    def _add(self, counts: Counts, sums: Array) -> None:
        if counts.size > self._counts.size:
            more = counts.size - self._counts.size
            self._counts, self._sums = np.pad(self._counts, (0, more)), np.pad(self._sums, (0, more))
        self._counts[: counts.size] += counts
        self._sums[: sums.size] += sums

    def _bins(self, values: Array) -> npt.NDArray[np.int64]:
        # The bits of a positive double, read as an integer, rise with it: exponent and leading bits are a log scale.
        bins: npt.NDArray[np.int64] = np.maximum((_pattern(values) >> self._shift) - self._lowest + 1, 0)
        return bins

    def _edges(self, bins: npt.NDArray[np.intp]) -> tuple[Array, Array]:
        edges = ((np.stack([bins, bins + 1]).astype(np.int64) + self._lowest - 1) << self._shift).view(np.float64)
        return np.where(bins == 0, 0.0, edges[0]), edges[1]


def _sums(bins: npt.NDArray[np.intp], values: Array) -> Array:
    return np.asarray(np.bincount(bins, weights=values), dtype=np.float64)


def _pattern(values: Array) -> Counts:
    return values.view(np.int64)
