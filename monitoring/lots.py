"""Rows that are alike within lots: the lot is then what is ranked.

Rows that share a lot are not exchangeable, but lots are. Each lot gives a few numbers that depend on its own rows only,
so that where nothing changes the lots of a window rank among the reference's lots as any lot would, whatever the
losses' law and however alike the rows of one lot are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.ranks import Floats

LEAST_LOTS = 50
"""Fewer lots in the reference tell too little about how lots differ."""

LOT_STATISTICS = ("mean", "tail")
"""A lot's mean loss, and the mean of its worst tenth of rows (one row at least). The budget is shared between them."""


def lot_statistics(losses: Floats, lots: NDArray[Any]) -> tuple[NDArray[Any], dict[str, Floats]]:
    """The numbers by which lots are ranked.

    Parameters
    ----------
    losses: (n,).
    lots: (n,) name of each row's lot.

    Returns
    -------
    The l names, as text and in order, and for each of LOT_STATISTICS the numbers, (l,).

    >>> names, numbers = lot_statistics(np.array([0.1, 0.3, 2.0]), np.array(["a", "a", "b"]))
    >>> names.tolist(), numbers["mean"].tolist(), numbers["tail"].tolist()
    (['a', 'b'], [0.2, 2.0], [0.3, 2.0])
    """
    names, member = np.unique(np.array([str(each) for each in lots], dtype=str), return_inverse=True)
    if not names.size:
        return names, {each: np.zeros(0) for each in LOT_STATISTICS}
    rows = np.bincount(member)
    order = np.lexsort((-losses, member))
    starts = np.cumsum(rows) - rows
    # The place of each row within its lot, the worst first.
    place = np.arange(losses.size) - np.repeat(starts, rows)
    kept = np.maximum(rows // 10, 1)
    worst = place < np.repeat(kept, rows)
    return names, {
        "mean": np.bincount(member, weights=losses) / rows,
        "tail": np.add.reduceat(np.where(worst, losses[order], 0.0), starts) / kept,
    }
