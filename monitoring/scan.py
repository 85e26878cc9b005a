"""When has the loss concentration shifted? One number is given, the alarm budget; the thresholds follow from it.

The budget is the probability of any false alarm over a model's whole life, as long as the process is as it was in the
reference. Losses are replaced by their ranks within the reference, whose law then does not depend on the losses' law,
and the real life is compared with thousands of simulated lives in which nothing changes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from monitoring.effect import BinnedLosses, effect_of
from monitoring.life import Counts, Life
from monitoring.lives import SCALES
from monitoring.ranks import jitter
from monitoring.sample import Ids, take
from monitoring.scan_reference import Reference, level_of_windows, rank_counts
from monitoring.scan_result import ScanResult, State

FORMAT = 1
_LARGEST_DEFAULT_LIVES = 25_000
_PARAMETERS = (
    "alarm_budget",
    "windows",
    "window_size",
    "relevant_effect",
    "seed",
    "lives",
    "min_rows",
    "label_age",
)


class ConcentrationScan:
    """The rank scan: alarms when losses are harder than in the reference, within an alarm budget.

    Sums of five scores of the ranks (the rank itself; being among the worst 10, 3 and 1 per cent; -log(1 - rank)) over
    the last 1, 2, 4, 8 and 16 windows, each against the reference and against the reference with all windows before;
    the statistic is their maximum. Thresholds come from twin lives (`monitoring.lives`).

    Parameters
    ----------
    alarm_budget: probability of any false alarm over the whole life, in (0, 1).
    windows: planned length of the life.
    window_size: planned rows of a window; windows may differ.
    relevant_effect: smallest relevant effect, at least 1: an alarm also needs CVaR 0.9 of so many times the
        reference's, or what corresponds to it in the mean or in the share of hard rows
        (`monitoring.effect.smallest_relevant`). None or 1 switches it off. It can only lower false alarms.
    seed: of jitters and twins. The same seed and data give the same decisions.
    lives: number of twins; by default 20 * windows / alarm_budget, between 2,000 and 25,000 (more in a long life).
    min_rows: labelled rows that a window needs to be judged; by default a quarter of `window_size`, between 20 and 50.
    label_age: days after which a row's label is counted, in the reference and the windows alike; None: no limit.

    The promise holds if the rows (or, with lots, the lots) are exchangeable as long as nothing changes, no row of the
    reference comes back in a window, and neither the time of a look nor its number of rows depends on the losses. It
    is a promise over all that chance decides, the reference and the seed's jitters too.

    >>> rng = np.random.default_rng(1)
    >>> scan = ConcentrationScan(alarm_budget=0.05, windows=10, window_size=200).fit(rng.exponential(size=1000))
    >>> scan.update(rng.exponential(size=200), window="2026-W01").state
    'ok'
    >>> result = scan.update(3 * rng.exponential(size=180), window="2026-W02")
    >>> result.alarm, result.state, result.statistic > result.threshold
    (True, 'alarm', True)
    >>> scan.update(rng.exponential(size=200), window="2026-W03").state
    'spent'
    """

    def __init__(
        self,
        alarm_budget: float = 0.05,
        windows: int = 52,
        window_size: int = 200,
        relevant_effect: float | None = 1.15,
        *,
        seed: int = 0,
        lives: int | None = None,
        min_rows: int | None = None,
        label_age: float | None = None,
    ) -> None:
        if not 0 < alarm_budget < 1:
            raise ValueError(f"alarm_budget is {alarm_budget}; it is a probability above 0 and below 1")
        if windows < 1:
            raise ValueError(f"windows is {windows}; a life has at least 1")
        if window_size < 1:
            raise ValueError(f"window_size is {window_size}; a window has at least 1 row")
        if relevant_effect is not None and not 1 <= relevant_effect < math.inf:
            raise ValueError(f"relevant_effect is {relevant_effect}; it is a multiple of at least 1, or None for off")
        if seed < 0:
            raise ValueError(f"seed is {seed}; it is a whole number of at least 0")
        wanted = math.ceil(20 * windows / alarm_budget)
        default = max(2_000, min(wanted, _LARGEST_DEFAULT_LIVES), math.ceil(2 * windows / alarm_budget))
        self.alarm_budget = float(alarm_budget)
        self.windows = int(windows)
        self.window_size = int(window_size)
        self.relevant_effect = None if relevant_effect is None else float(relevant_effect)
        self.seed = int(seed)
        self.lives = default if lives is None else int(lives)
        self.min_rows = max(20, min(50, window_size // 4)) if min_rows is None else int(min_rows)
        self.label_age = None if label_age is None else float(label_age)
        if self.lives < 1 / alarm_budget:
            raise ValueError(f"lives is {lives}; with fewer than {math.ceil(1 / alarm_budget)} no alarm can ever come")
        if self.min_rows < 1:
            raise ValueError(f"min_rows is {min_rows}; a window needs at least 1 row to be judged")
        self._reference: Reference | None = None
        self._life: Life | None = None
        self._recent: list[tuple[str, BinnedLosses]] = []
        self._position = 0
        self._last: tuple[str, bool] | None = None
        self._closed = False

    def fit(
        self,
        losses: ArrayLike,
        *,
        ids: Ids | None = None,
        lots: Ids | None = None,
        ages: ArrayLike | None = None,
        probabilities: ArrayLike | None = None,
    ) -> ConcentrationScan:
        """Take the reference, and begin a life.

        Parameters
        ----------
        losses: (n,) of the rows in which the process was as it should be, n at least 200.
        ids: (n,) of the rows; by default a number of their own.
        lots: (n,) where rows are alike within lots: the lot is then what is ranked. A machine that appears in the
            reference and in the windows is no lot; a machine's day may be one.
        ages: (n,) days from a row to its label; rows above `label_age` do not count.
        probabilities: (n,) with which each row was chosen for labelling, where suspicious rows are chosen more often;
            NaN where unknown. Rows are thinned to the smallest one.

        Raises
        ------
        ValueError: too few rows, all losses equal, a loss that is not finite, an id twice.
        """
        if ages is not None:
            young = self._young(ages, np.shape(losses))
            losses = np.asarray(losses)[young]
            ids, lots, probabilities = (
                None if each is None else np.asarray(each)[young] for each in (ids, lots, probabilities)
            )
        sample = take(losses, where="reference", seed=self.seed, ids=ids, lots=lots, probabilities=probabilities)
        self._reference, views = Reference.of(sample, self.seed)
        self._life = Life(views=views, lives=self.lives, seed=self.seed, horizon=self.windows)
        self._recent, self._position, self._last, self._closed = [], 0, None, False
        return self

    @property
    def ended(self) -> bool:
        """The life is closed by an alarm, or all its windows have gone by."""
        waiting = self._last is not None and not self._last[1] and self._position == self.windows
        return self._closed or (self._position >= self.windows and not waiting)

    @property
    def by_lots(self) -> bool:
        """Lots are ranked, not rows."""
        return self._fitted()[0].lots is not None

    def threshold_for(self, rows: int, *, window: str | int | None = None) -> float | None:
        """The threshold that the next window would meet with `rows` judged rows (or lots); changes nothing.

        `update` with as many then uses the same twins. None where no alarm would be possible: too few rows, a life
        that has ended, or a budget that is used up for the moment.

        Parameters
        ----------
        rows: labelled rows in the window; with lots, the number of lots.
        window: its name, needed only where the latest window, not judged for want of labels, is given again.
        """
        reference, life = self._fitted()
        position = self._position_of(None if window is None else str(window))
        if self._closed or position > self.windows or self._why_not(reference, rows, representative=True):
            return None
        return life.threshold(rows, self.alarm_budget * position / self.windows)

    def update(
        self,
        losses: ArrayLike,
        *,
        window: str | int | None = None,
        ids: Ids | None = None,
        lots: Ids | None = None,
        age: float | None = None,
        probabilities: ArrayLike | None = None,
        threshold: float | None = None,
    ) -> ScanResult:
        """Judge one more window, in the order of the calendar.

        A window with fewer than `min_rows` rows (an empty one too) is not judged: the calendar moves on, nothing is
        spent, and its share of the budget is there at the next look. As long as it is the latest it may be given
        again, once more labels are there. After an alarm the life is closed, after `windows` windows it has ended:
        the state is then "spent", the statistic is still shown and nothing can alarm; `fit` begins a new life.

        Parameters
        ----------
        losses: (n,) of the window's labelled rows.
        window: its name, for example "2026-W14"; by default its number.
        ids: (n,) of the rows; by default a number of their own.
        lots: (n,), if and only if the reference had lots; a lot belongs to the window in which it ends.
        age: days from a row to its label, as `label_age` says; only checked.
        probabilities: as in `fit`.
        threshold: replaces this look's threshold where there is one, for a drill; the twins keep to theirs, and the
            smallest relevant effect still counts.

        Raises
        ------
        ValueError: `fit` was not called; a loss that is not finite; an id twice; a window that was judged already.
        """
        reference, life = self._fitted()
        name = str(self._position + 1 if window is None else window)
        if any(each == name for each, _ in self._recent):
            raise ValueError(f"window {name} was judged already; windows are judged once, in the order of the calendar")
        if self.by_lots != (lots is not None):
            raise ValueError(f"window {name}: lots must be given if and only if the reference had them")
        if age is not None and age != self.label_age:
            raise ValueError(f"window {name}: age is {age}; this life counts labels of {self.label_age} days")
        sample = take(losses, where=f"window {name}", seed=self.seed, ids=ids, lots=lots, probabilities=probabilities)
        rows = sample.rows
        position = self._position_of(name)
        over = self._closed or position > self.windows
        result = ScanResult(
            alarm=False, state="ok", statistic=None, threshold=None, budget_spent=life.spent, window=name, rows=rows
        )
        state = self._why_not(reference, rows, representative=sample.representative)
        if state is not None:
            self._position, self._last = position, (name, False)
            return replace(result, state="spent" if over else state, missing=max(self._least(reference) - rows, 0))
        bins = reference.bins
        binned = BinnedLosses.of(sample.losses, bins.place(sample.losses, sample.jitters), bins.spacings.size)
        counts = Counts(rank_counts(life.views, sample, self.seed))
        if over:
            life.add(counts)
        else:
            own = life.threshold(counts.units, self.alarm_budget * position / self.windows)
            life.look(counts, own)
            limit = own if own is None or threshold is None else float(threshold)
            result = replace(result, threshold=limit, budget_spent=life.spent)
        self._position, self._last = position, (name, True)
        self._recent = [(name, binned), *self._recent[: SCALES[-1] - 1]]
        result = replace(self._judge(reference, life, result), lots=counts.units if self.by_lots else None)
        self._closed = self._closed or result.alarm
        return replace(result, state="spent") if over else result

    def _fitted(self) -> tuple[Reference, Life]:
        if self._reference is None or self._life is None:
            raise ValueError("the scan has no reference yet; call fit with the reference's losses first")
        return self._reference, self._life

    def _young(self, ages: ArrayLike, shape: tuple[int, ...]) -> Any:
        if self.label_age is None:
            raise ValueError("ages are given, but label_age is None; say after how many days a label is counted")
        days = np.asarray(ages, dtype=np.float64)
        if days.shape != shape or np.isnan(days).any():
            raise ValueError(f"ages have shape {days.shape}; there must be a number of days for each loss {shape}")
        return days <= self.label_age

    def _position_of(self, name: str | None) -> int:
        """Place in the calendar, from 1; the latest window keeps its place when it was not judged."""
        again = self._last is not None and self._last[0] == name and not self._last[1]
        return self._position + (0 if again else 1)

    def _least(self, reference: Reference) -> int:
        return self.min_rows if reference.lots is None else 1

    def _why_not(self, reference: Reference, rows: int, *, representative: bool) -> State | None:
        if not (representative and reference.representative):
            return "labels_not_representative"
        if not reference.enough_lots:
            return "too_few_lots"
        return "too_few_labels" if rows < self._least(reference) else None

    def _judge(self, reference: Reference, life: Life, result: ScanResult) -> ScanResult:
        """Statistic and effect of the newest window; the alarm, where there is a threshold."""
        tie = float(jitter([result.window], self.seed, "statistic")[0])
        parts = sorted(life.components(tie), key=lambda part: -part.highest)
        statistic, threshold = parts[0].highest, result.threshold
        # The effect is sought in the windows that alarm; where none do, in those that come nearest.
        alarming = [part for part in parts if threshold is not None and part.highest > threshold] or parts[:1]
        effects = [
            effect_of(
                level_of_windows([each for _, each in self._recent[: part.windows]], reference.bins),
                reference.level,
                windows=part.windows,
                score=part.score,
                baseline=part.baseline,
                relevant_effect=self.relevant_effect,
            )
            for part in alarming
        ]
        effect = next((each for each in effects if each.relevant), effects[0])
        result = replace(result, statistic=statistic, effect=effect)
        if threshold is None:
            return result
        alarm = result.tested > threshold
        improvement = max(-part.lowest for part in parts) > threshold
        return replace(result, alarm=alarm, state="alarm" if alarm else "ok", improvement=improvement and not alarm)

    def to_dict(self) -> dict[str, Any]:
        """The whole state as JSON holds it, about 10 kB for a year of weeks; without the twins, which are replayed.

        >>> scan = ConcentrationScan(windows=10).fit(np.random.default_rng(1).exponential(size=500))
        >>> ConcentrationScan.from_dict(scan.to_dict()).threshold_for(200) == scan.threshold_for(200)
        True
        """
        state: dict[str, Any] = {"format": FORMAT, **{name: getattr(self, name) for name in _PARAMETERS}}
        if self._reference is None or self._life is None:
            return state
        return state | {
            "reference": self._reference.to_dict(),
            "life": self._life.to_dict(),
            "recent": [[name, binned.counts.tolist(), binned.sums.tolist()] for name, binned in self._recent],
            "position": self._position,
            "last": None if self._last is None else list(self._last),
            "closed": self._closed,
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> ConcentrationScan:
        """The scan that `to_dict` described; it goes on exactly as the first one would have.

        Raises
        ------
        ValueError: the state was written by a newer version.
        """
        if state["format"] > FORMAT:
            raise ValueError(f"the scan's state has format {state['format']}; this version reads up to {FORMAT}")
        scan = cls(**{name: state[name] for name in _PARAMETERS})
        if "reference" not in state:
            return scan
        scan._reference = Reference.from_dict(state["reference"])
        scan._life = Life.from_dict(state["life"], lives=scan.lives, seed=scan.seed, horizon=scan.windows)
        scan._recent = [
            (name, BinnedLosses(np.array(counts), np.array(sums, dtype=float)))
            for name, counts, sums in state["recent"]
        ]
        scan._position = state["position"]
        scan._last = None if state["last"] is None else (state["last"][0], state["last"][1])
        scan._closed = state["closed"]
        return scan
