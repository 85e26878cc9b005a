"""When has the loss concentration shifted? One number is given, the alarm budget; the thresholds follow from it.

The budget is the probability of any false alarm over a model's whole life, as long as the process is as it was in the
reference. Losses are replaced by their ranks within the reference, whose law then does not depend on the losses' law,
and the real life is compared with thousands of simulated lives in which nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monitoring.course import Course
from monitoring.life import Life
from monitoring.ranks import Floats
from monitoring.sample import Ids, evenly, take
from monitoring.scan_reference import Reference, weekly_counts
from monitoring.scan_result import ScanResult
from monitoring.twin_memory import TwinMemory
from monitoring.weeks import WeekVariance

FORMAT = 2
_LARGEST_DEFAULT_LIVES = 25_000
_PARAMETERS = (
    "alarm_budget",
    "windows",
    "window_size",
    "relevant_effect",
    "seed",
    "lives",
    "min_rows",
)


class ConcentrationScan:
    """The rank scan: alarms when losses are harder than in the reference, within an alarm budget.

    Sums of six scores of the ranks (the rank itself; being among the worst 10, 3 and 1 per cent; -log(1 - rank); how
    far out the worst tenth lies) over the last 1, 2, 4, 8 and 16 windows, each against the reference and against the
    reference with all windows before; the statistic is their maximum. Thresholds come from twin lives
    (`monitoring.lives`).

    Parameters
    ----------
    alarm_budget: probability of any false alarm over the whole life, in (0, 1).
    windows: planned length of the life.
    window_size: planned rows of a window; windows may differ.
    relevant_effect: smallest relevant effect, at least 1: an alarm also needs CVaR 0.9 of so many times the
        reference's, or what corresponds to it in the mean or in the share of hard rows
        (`monitoring.effect.smallest_relevant`), and more than ordinary differences between weeks explain
        (`monitoring.weeks`). None or 1 switches both off. They can only lower false alarms.
    seed: of jitters and twins. The same seed and data give the same decisions.
    lives: number of twins; by default 20 * windows / alarm_budget, between 2,000 and 25,000 (more in a long life). The
        budget is the share of one label age.
    min_rows: labelled rows that a window needs to be judged; by default a quarter of `window_size`, between 20 and 50.
    label_age: days after which a row's label is counted, in the reference and the windows alike; None: no limit.
        Several, such as (7, 21, 42): each window is looked at once at each age, against the reference's rows whose
        labels were there by the same age. Each age has a life of its own and an equal share of the budget, so that
        the promise holds however delays and losses hang together.

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
        label_age: float | Sequence[float] | None = None,
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
        self.label_ages = _ages_of(label_age)
        share = alarm_budget / len(self.label_ages)
        wanted = math.ceil(20 * windows / share)
        default = max(2_000, min(wanted, _LARGEST_DEFAULT_LIVES), math.ceil(2 * windows / share))
        self.alarm_budget = float(alarm_budget)
        self.windows = int(windows)
        self.window_size = int(window_size)
        self.relevant_effect = None if relevant_effect is None else float(relevant_effect)
        self.seed = int(seed)
        self.lives = default if lives is None else int(lives)
        self.min_rows = max(20, min(50, window_size // 4)) if min_rows is None else int(min_rows)
        if self.lives < 1 / share:
            raise ValueError(f"lives is {lives}; with fewer than {math.ceil(1 / share)} no alarm can ever come")
        if self.min_rows < 1:
            raise ValueError(f"min_rows is {min_rows}; a window needs at least 1 row to be judged")
        self._courses: list[Course] = []
        self._closed = False
        self._newest: tuple[str, bool] | None = None

    def fit(
        self,
        losses: ArrayLike,
        *,
        ids: Ids | None = None,
        lots: Ids | None = None,
        ages: ArrayLike | None = None,
        probabilities: ArrayLike | None = None,
        weeks: Ids | None = None,
    ) -> ConcentrationScan:
        """Take the reference, and begin a life.

        Parameters
        ----------
        losses: (n,) of the rows in which the process was as it should be, n at least 200.
        ids: (n,) of the rows; by default a number of their own.
        lots: (n,) where rows are alike within lots: the lot is then what is ranked. A machine that appears in the
            reference and in the windows is no lot; a machine's day may be one.
        ages: (n,) days from a row to its label; rows above `label_age` do not count. Needed where there are several.
        probabilities: (n,) with which each row was chosen for labelling, where suspicious rows are chosen more often;
            NaN where unknown. Rows are thinned to the smallest one.
        weeks: (n,) week of each row, a week being as long as a window; `week_variance` then tells how much ordinary
            weeks differ, and the scan need not learn it from the windows alone.

        Raises
        ------
        ValueError: too few rows, all losses equal, a loss that is not finite, an id twice.
        """
        if ages is None and len(self.label_ages) > 1:
            raise ValueError(f"label_age is {self.label_ages}, so the reference needs the age of each row's label")
        old = None if ages is None else self._checked_ages(ages, np.shape(losses))
        courses = []
        for age in self.label_ages:
            young = slice(None) if old is None or age is None else old <= age
            values, names, groups, chances, periods = (
                None if each is None else np.asarray(each)[young] for each in (losses, ids, lots, probabilities, weeks)
            )
            sample = take(
                np.asarray(values), where="reference", seed=self.seed, ids=names, lots=groups, probabilities=chances,
                weeks=periods,
            )  # fmt: skip
            reference, views = Reference.of(sample, self.seed, age=age)
            life = Life(views=views, lives=self.lives, seed=self.seed, horizon=self.windows)
            if sample.weeks is None or reference.lots is not None:
                life.reference_weeks = max(1, round(np.size(losses) / self.window_size))
            else:
                life.learn_weeks(weekly_counts(views, sample, self.seed))
            courses.append(self._course(age, reference, life))
        self._courses, self._closed, self._newest = courses, False, None
        return self

    @property
    def ended(self) -> bool:
        """The life is closed by an alarm, or all its windows have gone by."""
        return self._closed or (bool(self._courses) and all(course.ended for course in self._courses))

    @property
    def by_lots(self) -> bool:
        """Lots are ranked, not rows."""
        return self._fitted()[0].by_lots

    @property
    def week_variance(self) -> WeekVariance | None:
        """How much the reference's own weeks differ; None where `fit` was not told them."""
        return self._fitted()[-1].reference.weeks

    def threshold_for(self, rows: int, *, window: str | int | None = None, age: float | None = None) -> float | None:
        """The threshold that the next window would meet with `rows` judged rows (or lots); changes nothing.

        `update` with as many then uses the same twins. None where no alarm would be possible: too few rows, a life
        that has ended, or a budget that is used up for the moment.

        Parameters
        ----------
        rows: labelled rows in the window; with lots, the number of lots.
        window: its name, needed only where the latest window, not judged for want of labels, is given again.
        age: of the labels, needed only where there are several.
        """
        return self._at(age, "").threshold(rows, None if window is None else str(window), closed=self._closed)

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
        age: days from a row to its label, one of `label_age`; needed only where there are several. The losses are
            then those of all the window's rows whose labels were there by that age.
        probabilities: as in `fit`.
        threshold: replaces this look's threshold where there is one, for a drill; the twins keep to theirs, and the
            smallest relevant effect still counts.

        Raises
        ------
        ValueError: `fit` was not called; a loss that is not finite; an id twice; a window that was judged already.
        """
        course = self._at(age, "" if window is None else f"window {window}: ")
        name = str(course.position + 1 if window is None else window)
        if course.judged(name):
            raise ValueError(f"window {name} was judged already; windows are judged once, in the order of the calendar")
        if self.by_lots != (lots is not None):
            raise ValueError(f"window {name}: lots must be given if and only if the reference had them")
        sample = take(
            losses, where=f"window {name}", seed=self.seed, ids=ids, lots=lots, probabilities=probabilities,
            least=course.reference.least,
        )  # fmt: skip
        result = course.look(sample, name, closed=self._closed, threshold=threshold)
        self._newest = course.last
        self._closed = self._closed or result.alarm
        return replace(result, budget_spent=sum(each.life.spent for each in self._courses))

    def even_rows(
        self, ids: Ids, probabilities: Floats, *, window: str | int | None = None, age: float | None = None
    ) -> NDArray[np.bool_]:
        """The rows that stay where some were more likely than others to be labelled; `update` and `fit` keep the same.

        Parameters
        ----------
        ids, probabilities: (n,), all known.
        window: its name; None for the reference.
        age: of the labels, needed only where there are several.
        """
        least = 1.0 if window is None else self._at(age, "").reference.least
        where = "reference" if window is None else f"window {window}"
        return evenly(ids, probabilities, where=where, seed=self.seed, least=least)[0]

    def _fitted(self) -> list[Course]:
        if not self._courses:
            raise ValueError("the scan has no reference yet; call fit with the reference's losses first")
        return self._courses

    def _at(self, age: float | None, where: str) -> Course:
        """The course of one label age."""
        courses = self._fitted()
        if age is None and len(courses) == 1:
            return courses[0]
        found = [course for course in courses if course.age == age]
        if not found:
            ages = " or ".join(str(each) for each in self.label_ages)
            raise ValueError(f"{where}age is {age}; this life counts labels of {ages} days")
        return found[0]

    def _checked_ages(self, ages: ArrayLike, shape: tuple[int, ...]) -> Any:
        if self.label_ages == (None,):
            raise ValueError("ages are given, but label_age is None; say after how many days a label is counted")
        days = np.asarray(ages, dtype=np.float64)
        if days.shape != shape or np.isnan(days).any():
            raise ValueError(f"ages have shape {days.shape}; there must be a number of days for each loss {shape}")
        return days

    def _course(self, age: float | None, reference: Reference, life: Life) -> Course:
        return Course(age=age, reference=reference, life=life, **self._of_courses())

    def _of_courses(self) -> dict[str, Any]:
        return {
            "windows": self.windows,
            "budget": self.alarm_budget / len(self.label_ages),
            "min_rows": self.min_rows,
            "relevant_effect": self.relevant_effect,
            "seed": self.seed,
        }

    def to_dict(self) -> dict[str, Any]:
        """The whole state as JSON holds it, about 10 kB for a year of weeks; without the twins, which are replayed.

        >>> scan = ConcentrationScan(windows=10).fit(np.random.default_rng(1).exponential(size=500))
        >>> ConcentrationScan.from_dict(scan.to_dict()).threshold_for(200) == scan.threshold_for(200)
        True
        """
        state: dict[str, Any] = {"format": FORMAT, **{name: getattr(self, name) for name in _PARAMETERS}}
        state["label_age"] = list(self.label_ages)
        if not self._courses:
            return state
        return state | {
            "courses": [course.to_dict() for course in self._courses],
            # Looks so far and the latest of them, by which two states of one life are told apart.
            "position": sum(course.position for course in self._courses),
            "last": None if self._newest is None else list(self._newest),
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
        # In format 1 there was one label age, named beside the parameters.
        ages = state["label_age"] if state["format"] > 1 else [state["label_age"]]
        scan = cls(**{name: state[name] for name in _PARAMETERS}, label_age=None if ages == [None] else ages)
        courses = state.get("courses", [state] if "reference" in state else [])
        if not courses:
            return scan
        scan._courses = [Course.from_dict(each, lives=scan.lives, **scan._of_courses()) for each in courses]
        scan._courses = [replace(each, age=age) for each, age in zip(scan._courses, scan.label_ages, strict=True)]
        scan._newest = None if state["last"] is None else (state["last"][0], state["last"][1])
        scan._closed = state["closed"]
        return scan

    def remember(self, folder: Path) -> None:
        """Keep in a folder what the twins came to: the next scan from `to_dict` need not replay a long life.

        >>> import tempfile
        >>> scan = ConcentrationScan(windows=10, window_size=50).fit(np.random.default_rng(0).exponential(size=300))
        >>> with tempfile.TemporaryDirectory() as name:
        ...     scan.remember(Path(name))
        ...     _ = scan.update(np.random.default_rng(1).exponential(size=50))
        ...     len(list(Path(name).iterdir()))
        1
        """
        for course in self._courses:
            course.life.memory = TwinMemory(folder)


def _ages_of(label_age: float | Sequence[float] | None) -> tuple[float | None, ...]:
    """Label ages from the youngest to the oldest."""
    if label_age is None:
        return (None,)
    ages = [float(each) for each in (label_age if isinstance(label_age, Sequence) else [label_age])]
    if not ages or len(set(ages)) != len(ages) or not all(0 <= each < math.inf for each in ages):
        raise ValueError(f"label_age is {label_age}; it is a number of days of at least 0, or several different ones")
    return tuple(sorted(ages))
