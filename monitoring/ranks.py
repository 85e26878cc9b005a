"""Losses as ranks within the reference: jitter for ties, bins, and the scores that the scan sums.

Where nothing changed, the law of a row's rank among the reference's rows is the same whatever the law of the losses.
So everything that follows from ranks alone, the scan's threshold above all, is the same for every plant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

BODY = 6
"""Even bins up to the 0.9 quantile; more would cost time in every simulated life and hardly any power."""

TAIL_EDGES = (0.9, 0.95, 0.97)
"""Quantiles at which a bin always begins; above the last one the bins halve down to single spacings."""

SCORES = ("level", "hard", "harder", "hardest", "weight", "concentration")
"""u, 1{u > .9}, 1{u > .97}, 1{u > .99}, -log(1 - u), and 1{u > .9} (-log(1 - u) - c), u being a row's rank within the
reference, from 0 to 1.

With c the last one has mean 0 over the worst tenth: it asks how far out the hard rows lie, not how many they are, and
is the one that sees fewer but harder rows at once. Fewer rows at the start of that tenth raise it as well, so
`monitoring.lives.components` lets it count only where the hardest rows are more."""


def jitter(ids: Sequence[Any] | NDArray[Any], seed: int, where: str = "") -> Floats:
    """One fixed number in (0, 1) for each row, from a hash of the seed, the row's place and its id.

    It parts rows of equal loss, the reference's rows too: (loss, number) has no ties, so the law of the ranks is the
    same for 0/1 losses as for any other. A window that is judged again keeps its ranks. The place (reference, or the
    window) is part of the hash because rows that shared a number would have their ties ordered alike: where ids
    begin at 0 in each window, a budget of 0.10 would else become anything from 0.01 to 0.8, depending on the seed.
    Numbers are as much a draw as the reference is, so the budget holds over seeds; simulated lives need one each.

    Parameters
    ----------
    ids: n row ids; told apart by their text.
    seed: of the life.
    where: the place.

    >>> jitter(["A17", "A18"], seed=0).round(3), jitter(["A18"], seed=0).round(3)
    (array([0.666, 0.465]), array([0.465]))
    """
    key = hashlib.blake2b(f"jitter {seed} {where}".encode(), digest_size=16).digest()
    digests = b"".join(hashlib.blake2b(str(each).encode(), key=key, digest_size=8).digest() for each in ids)
    # 53 bits are what a float holds; the half keeps both ends out.
    return ((np.frombuffer(digests, dtype="<u8") >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def checked_losses(losses: ArrayLike, what: str) -> Floats:
    """Losses as a float array of shape (n,), or a sentence about what is wrong with them.

    Raises
    ------
    ValueError: not one-dimensional, not numeric, NaN, infinite or negative; the sentence names the first such row.

    >>> checked_losses([0.1, float("nan")], "losses")
    Traceback (most recent call last):
    ValueError: losses: row 2 is nan; every loss must be a finite number of at least 0, leave out rows without a label
    """
    try:
        values = np.asarray(losses, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must be numbers, one a row; {error}") from error
    if values.ndim != 1:
        raise ValueError(f"{what} must have one number a row (shape (n,)), not shape {values.shape}")
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if bad.size:
        raise ValueError(
            f"{what}: row {bad[0] + 1} is {values[bad[0]]}; every loss must be a finite number of at least 0, "
            "leave out rows without a label"
        )
    return values


@dataclass(frozen=True)
class RankBins:
    """Bins of the ranks: b bins that hold whole spacings of the reference.

    A reference of n rows has n + 1 spacings. A bin that holds m of them has, under no change, a probability P_b with
    (P_b) ~ Dirichlet(m_b), whatever the law of the losses; a window of r rows then has counts Multinomial(r, P).

    Attributes
    ----------
    spacings: (b,) spacings held by each bin, from the lowest losses to the highest.
    edges: (b - 1,) losses of the reference at which a bin ends.
    jitters: (b - 1,) jitter of the rows at the edges.
    """

    spacings: Integers
    edges: Floats
    jitters: Floats

    @classmethod
    def of(cls, losses: Floats, jitters: Floats) -> RankBins:
        """Bins of a reference, its losses and jitters of shape (n,)."""
        ends = bin_ends(losses.size)
        order = np.lexsort((jitters, losses))[ends - 1]
        return cls(
            spacings=np.diff(ends, prepend=0, append=losses.size + 1), edges=losses[order], jitters=jitters[order]
        )

    def place(self, losses: Floats, jitters: Floats) -> Integers:
        """The bin of each row, 0 to b - 1, shape (n,)."""
        placed = np.zeros(losses.size, dtype=np.int64)
        for edge, edge_jitter in zip(self.edges, self.jitters, strict=True):
            placed += (losses > edge) | ((losses == edge) & (jitters > edge_jitter))
        return placed

    def hard(self, places: Integers) -> Floats:
        """1 for the rows that lie above the reference's 0.9 quantile, by their bins `places`; shape (n,)."""
        first = int(np.searchsorted(np.cumsum(self.spacings), round(int(self.spacings.sum()) * TAIL_EDGES[0])))
        return (places > first).astype(np.float64)


def bin_ends(rows: int) -> Integers:
    """Spacings below each inner edge of the bins, for a reference of `rows` rows.

    >>> bin_ends(1000).tolist()
    [150, 300, 450, 601, 751, 901, 951, 971, 986, 993, 997, 999, 1000]
    """
    spacings = rows + 1
    ends = [round(spacings * TAIL_EDGES[0] * step / BODY) for step in range(1, BODY)]
    ends += [round(spacings * quantile) for quantile in TAIL_EDGES]
    left = spacings - ends[-1]
    while left > 1:
        left = max(1, round(left / 2))
        ends.append(spacings - left)
    return np.array(sorted({end for end in ends if 0 < end < spacings}), dtype=np.int64)


@dataclass(frozen=True)
class Scores:
    """What a row adds to the sums, by its bin: s scores, centred and scaled under no change.

    Attributes
    ----------
    names: s of SCORES; one without mass in the reference is left out.
    values: (s, b) score of a row in bin b.
    skewness: (s,) third moment of each score under no change.
    moved: (s,) by how much the mean of each score moves when rows above the 0.9 quantile become twice as many.
    """

    names: tuple[str, ...]
    values: Floats
    skewness: Floats
    moved: Floats


def scores_of(spacings: Integers, names: Sequence[str] = SCORES) -> Scores:
    """The scores over bins that hold `spacings` spacings each, shape (b,).

    Parameters
    ----------
    spacings: (b,).
    names: which of SCORES; a life keeps to those that it began with.

    >>> scores = scores_of(np.diff(bin_ends(1000), prepend=0, append=1001))
    >>> scores.names, scores.values.shape
    (('level', 'hard', 'harder', 'hardest', 'weight', 'concentration'), (6, 14))
    """
    total = int(spacings.sum())
    u = (np.arange(total) + 0.5) / total
    rank = np.arange(total)
    worst = rank >= round(total * 0.9)
    weight = -np.log1p(-u)
    raw = {
        "level": u,
        "hard": worst.astype(np.float64),
        "harder": (rank >= round(total * 0.97)).astype(np.float64),
        "hardest": (rank >= round(total * 0.99)).astype(np.float64),
        "weight": weight,
        "concentration": np.where(worst, weight - weight[worst].mean(), 0.0) if worst.any() else np.zeros(total),
    }
    starts = np.cumsum(spacings) - spacings
    share = spacings / total
    hard = starts >= round(total * TAIL_EDGES[0])
    found, values, skewness, moved = [], [], [], []
    for name in names:
        score = np.add.reduceat(raw[name], starts) / spacings
        score = score - score @ share
        variance = float((score**2) @ share)
        if variance < 1e-12:
            continue
        score = score / np.sqrt(variance)
        found.append(name)
        values.append(score)
        skewness.append(float((score**3) @ share))
        moved.append(float(score[hard] @ share[hard] / (1 - share[hard].sum())))
    return Scores(names=tuple(found), values=np.array(values), skewness=np.array(skewness), moved=np.array(moved))
