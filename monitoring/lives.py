"""Twin lives: the real life's statistic beside that of thousands of simulated lives in which nothing changes.

The real life is one of R + 1 exchangeable ones as long as nothing changes. So a threshold taken from the R twins is
exact, with the reference's own noise, unequal windows and the many looks already inside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from monitoring.ranks import Floats, Integers, Scores
from monitoring.twin_memory import TwinState

SCALES = (1, 2, 4, 8, 16)
"""The last so many windows are summed, so that a jump and a slow change are both seen."""

BALANCE = 0.1
"""Exponent of the weight between scales. Without a weight the many nearly independent single windows set the
threshold alone, and small lasting changes are missed; with a larger one a jump is seen a window later."""

TIE = 1e-9
"""Each life's statistic gets a random part below this, less than any difference: where few rows are counted many lives
have the same statistic, and a threshold that takes all of them, or none, would waste the budget."""


@dataclass
class History:
    """Score sums of the windows seen so far, for one life or for many beside each other.

    Attributes
    ----------
    sums: of the last 16 windows, the newest first, each (s, lives).
    rows: of those windows.
    total: (s, lives) sums of all windows.
    total_rows: of all windows.
    """

    sums: list[Floats] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    total: Floats = field(default_factory=lambda: np.zeros((1, 1)))
    total_rows: int = 0

    def then(self, sums: Floats, rows: int) -> History:
        """The history after one more window; this one stays as it is."""
        keep = SCALES[-1] - 1
        return History(
            sums=[sums, *self.sums[:keep]],
            rows=[rows, *self.rows[:keep]],
            total=self.total + sums,
            total_rows=self.total_rows + rows,
        )


@dataclass(frozen=True)
class Component:
    """One of the statistics whose maximum is the scan's: a scale against a baseline, all scores.

    Attributes
    ----------
    windows: how many of the last windows are summed.
    baseline: "reference", or "earlier": the reference and all windows before those.
    values: (s, lives) standardised excess over the baseline; positive is harm.
    """

    windows: int
    baseline: str
    values: Floats


def components(history: History, scores: Scores, *, reference_rows: int, horizon: int) -> Iterator[Component]:
    """All components of the statistic at the newest window.

    The mean score of the last k windows less the baseline's, in units of its standard deviation under no change,
    then freed of its skewness (z = w + g/6 (w^2 - 1), solved for w: where few rows are hard, counts are skewed and
    would set the threshold for all scores) and weighted by scale.
    """
    recent = np.zeros_like(history.total)
    recent_rows = 0
    for count, (sums, rows) in enumerate(zip(history.sums, history.rows, strict=True), start=1):
        recent = recent + sums
        recent_rows += rows
        if count not in SCALES:
            continue
        scale = (2 * math.log(math.e * max(horizon, count) / count)) ** BALANCE
        earlier_rows = history.total_rows - recent_rows
        for name, base_rows in (("reference", 0), ("earlier", earlier_rows)):
            if name == "earlier" and not earlier_rows:
                continue
            # The reference's own scores have mean zero by construction, so it adds rows and no sum.
            total = reference_rows + base_rows
            variance = 1 / recent_rows + 1 / total
            excess = recent / recent_rows
            if base_rows:
                excess = excess - (history.total - recent) / total
            excess /= math.sqrt(variance)
            asymmetry = max(1 / recent_rows**2 - 1 / total**2, 0.0) / variance**1.5
            values = _unskewed(excess, scores.skewness * asymmetry)
            values /= scale
            if "concentration" in scores.names:
                _only_harm(values, scores.names)
            yield Component(windows=count, baseline=name, values=values)


def _only_harm(values: Floats, names: tuple[str, ...]) -> None:
    """Concentration counts at most twice as much as the hardest rows alone, and never as an improvement.

    Fewer rows of middling hardness raise it too, which is no harm; more of them lower it, which is no improvement.
    """
    place = names.index("concentration")
    limit = 2 * values[names.index("hardest")] if "hardest" in names else 0.0
    values[place] = np.maximum(np.minimum(values[place], limit), 0.0)


def _unskewed(excess: Floats, skewness: Floats) -> Floats:
    gamma = np.maximum(skewness, 1e-3)[:, None]
    root = excess * (2 / 3 * gamma)
    root += 1 + gamma**2 / 9
    np.maximum(root, 0, out=root)
    np.sqrt(root, out=root)
    root -= 1
    root *= 3 / gamma
    return root


def harm(parts: Iterator[Component]) -> Floats:
    """The scan's statistic of each life, shape (lives,): the maximum over components and scores.

    Rounded, so that two lives with the same counts tie, however their sums were added up; ties are then parted by
    chance (`TIE`).
    """
    best: Floats | None = None
    for part in parts:
        highest = part.values.max(axis=0)
        best = highest if best is None else np.maximum(best, highest)
    if best is None:
        raise ValueError("a statistic needs at least one window")
    return np.asarray(np.round(best, 9), dtype=np.float64)


class TwinLives:
    """R simulated lives in which nothing changes, advanced look by look beside the real one.

    At each look every twin draws as many rows as the real life has. With an allowance of a alarms, less the twins
    that have alarmed already, the threshold is the a-th largest statistic among the twins left, and the twins at or
    above it have alarmed. A real life above it is among the a highest of R + 1 exchangeable ones: its probability of
    a false alarm at this look is at most a / (R + 1).

    Parameters
    ----------
    spacings: (b,) of the bins.
    scores: over the same bins.
    lives: R.
    seed: the same seed gives the same twins.
    horizon: windows that the life is planned for.

    >>> from monitoring.ranks import bin_ends, scores_of
    >>> spacings = np.diff(bin_ends(500), prepend=0, append=501)
    >>> twins = TwinLives(spacings, scores_of(spacings), lives=1000, seed=0, horizon=10)
    >>> threshold = twins.threshold(rows=100, allowance=0.02)
    >>> twins.advance(rows=100, threshold=threshold)
    >>> twins.alarmed
    20
    """

    def __init__(self, spacings: Integers, scores: Scores, *, lives: int, seed: int, horizon: int) -> None:
        self._scores = scores
        self._seed = seed
        self._horizon = horizon
        self._reference_rows = int(spacings.sum()) - 1
        self._probabilities = np.random.default_rng([seed, 1]).dirichlet(spacings.astype(np.float64), size=lives)
        # A body bin last: its count is what remains, so that one expensive draw is saved.
        self._order = np.roll(np.arange(spacings.size), -1)
        self._probabilities = np.ascontiguousarray(self._probabilities[:, self._order])
        self._left = np.ones(lives, dtype=bool)
        self._history = History(total=np.zeros((len(scores.names), lives)))
        self._looks = 0
        self._next: tuple[int, History, Floats] | None = None

    @property
    def lives(self) -> int:
        """R."""
        return self._left.size

    @property
    def alarmed(self) -> int:
        """Twins that have alarmed so far."""
        return int(self.lives - np.count_nonzero(self._left))

    def threshold(self, rows: int, allowance: float) -> float | None:
        """The threshold if the next look has `rows` rows; changes nothing.

        Parameters
        ----------
        rows: in the window that is looked at.
        allowance: the share of lives that may have alarmed by then, 0 to 1.

        Returns
        -------
        None where the allowance is used up, so that there can be no alarm at this look.
        """
        # The small term keeps a product such as 0.1 * 52000 / 52 from falling just below a whole number.
        left = math.floor(allowance * self.lives + 1e-9) - self.alarmed
        if left <= 0:
            return None
        _, statistics = self._prospect(rows)
        candidates = statistics[self._left]
        return float(np.partition(candidates, -left)[-left])

    def advance(self, rows: int, threshold: float | None) -> None:
        """Take the look: the twins at or above the threshold have alarmed."""
        self._take(*self._prospect(rows), threshold)

    def replay(self, looks: Sequence[tuple[int, float | None]]) -> None:
        """Take many looks again, each (rows, threshold), as after a restart."""
        for (sums, ties), (rows, threshold) in zip(self._drawn(looks, self._looks), looks, strict=True):
            self._take(*self._judge(sums, ties, rows), threshold)

    def resume(self, looks: Sequence[tuple[int, float | None]], state: TwinState) -> None:
        """Come to where `replay` of these looks would: `state` is from there, and the last windows are drawn again."""
        recent = looks[-SCALES[-1] :]
        drawn = [sums for sums, _ in self._drawn(recent, len(looks) - len(recent))]
        self._history = History(
            sums=drawn[::-1],
            rows=[rows for rows, _ in recent][::-1],
            total=state.total,
            total_rows=sum(rows for rows, _ in looks),
        )
        self._left, self._looks, self._next = state.left.copy(), len(looks), None

    @property
    def state(self) -> TwinState:
        """What `resume` needs beside the looks so far."""
        return TwinState(self._left.copy(), self._history.total)

    def _drawn(self, looks: Sequence[tuple[int, float | None]], first: int) -> Iterator[tuple[Floats, Floats]]:
        """Draws of looks that follow each other; `first` says how many there were before."""
        with ThreadPoolExecutor(max_workers=2) as pool:  # drawing frees the interpreter's lock, and is most of the work
            yield from pool.map(lambda look: self._draw(first + look[0], look[1][0]), enumerate(looks))

    def _prospect(self, rows: int) -> tuple[History, Floats]:
        if self._next is None or self._next[0] != rows:
            self._next = (rows, *self._judge(*self._draw(self._looks, rows), rows))
        return self._next[1], self._next[2]

    def _draw(self, look: int, rows: int) -> tuple[Floats, Floats]:
        """Every twin's score sums of a window, (s, lives), and what parts ties, (lives,). Each look has its stream."""
        generator = np.random.default_rng([self._seed, 2, look])
        counts = generator.multinomial(rows, self._probabilities)
        sums = np.asarray(self._scores.values[:, self._order] @ counts.T.astype(np.float64))
        return sums, TIE * generator.random(self.lives)

    def _judge(self, sums: Floats, ties: Floats, rows: int) -> tuple[History, Floats]:
        history = self._history.then(sums, rows)
        parts = components(history, self._scores, reference_rows=self._reference_rows, horizon=self._horizon)
        return history, harm(parts) + ties

    def _take(self, history: History, statistics: Floats, threshold: float | None) -> None:
        self._history = history
        self._looks += 1
        self._next = None
        if threshold is not None:
            self._left &= statistics < threshold
