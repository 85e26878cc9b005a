"""Which candidate to take, and why: careful, because a pilot study compares many and the best of many looks good.

Another candidate than ERM (with early stopping and temperature scaling, as all have them) is recommended only where
it is better in a figure that matters by more than picking the best of all candidates explains, and where no figure
can be worse than a stated limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from softad.judging import ABSOLUTE, BALANCED, FIGURES, MEAN, RECALL, TAIL, FigureName
from softad.paired import Array, Difference, critical_value

CONFIDENCE = 0.95

NOISE = "hard rows look like noise"
RARE = "rare class"
LEARNABLE = "hard rows can be learnt"
NO_DIFFERENCE = "no measurable difference"
UNFINISHED = "trained too briefly to tell"


@dataclass(frozen=True)
class Limit:
    """What is asked of a figure; shares of ERM's figure for losses, otherwise differences (.01 is a point).

    Attributes
    ----------
    worst: the bound of the loss against ERM (one-sided, 95 %) must not be beyond.
    loss: the estimated loss must not be beyond.
    gain: an estimated gain below this is not worth a change.
    alpha: error probability of calling any candidate better in this figure.
    """

    worst: float
    loss: float
    gain: float
    alpha: float


LIMITS: dict[str, Limit] = {
    MEAN.key: Limit(0.02, 0.01, 0.01, 0.05 / 3),
    TAIL.key: Limit(0.05, 0.025, 0.02, 0.05),
    BALANCED.key: Limit(0.01, 0.005, 0.005, 0.05 / 3),
    RECALL.key: Limit(0.02, 0.01, 0.01, 0.05 / 3),
    ABSOLUTE.key: Limit(0.02, 0.01, 0.01, 0.05 / 3),
}
"""By figure; figures that a study does not have are not asked for."""


@dataclass(frozen=True)
class Contender:
    """A candidate against ERM.

    Attributes
    ----------
    name: of the candidate.
    differences: figure to its difference to ERM; relative for losses and errors.
    """

    name: str
    differences: Mapping[str, Difference]


@dataclass(frozen=True)
class Choice:
    """What to take.

    Attributes
    ----------
    name: of the candidate.
    reason: in words, with the numbers.
    refused: candidate to why it was not taken.
    """

    name: str
    reason: str
    refused: Mapping[str, str]


def non_dominated(figures: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """Names of those that no other is at least as good as in all figures and better in one; lower is better.

    >>> non_dominated({"a": (1.0, 2.0), "b": (2.0, 1.0), "c": (2.0, 2.0)})
    ('a', 'b')
    """
    names = list(figures)
    if not names:
        return ()
    values = np.array([figures[name] for name in names], dtype=np.float64)
    values[np.isnan(values)] = math.inf
    no_worse = (values[:, None] <= values[None]).all(-1)
    better = (values[:, None] < values[None]).any(-1)
    beaten = set(np.flatnonzero((no_worse & better).any(axis=0)).tolist())
    return tuple(name for number, name in enumerate(names) if number not in beaten)


def choose(
    contenders: Sequence[Contender],
    *,
    baseline: str = "ERM",
    rounds: int,
    correlation: Mapping[str, Array] | None = None,
) -> Choice:
    """The candidate to take.

    Parameters
    ----------
    contenders: all candidates but the baseline.
    rounds: how many rounds judged them.
    correlation: figure to the correlation of the contenders' differences, shape (m, m), in their order; without it
        they count as independent, which asks more.

    >>> good = Contender("SoftAD", {"mean": Difference(-0.01, 0.002, 10), "tail": Difference(-0.1, 0.01, 10)})
    >>> choose([good], rounds=10).name
    'SoftAD'
    >>> vague = Contender("SoftAD", {"mean": Difference(-0.01, 0.02, 10), "tail": Difference(-0.1, 0.1, 10)})
    >>> choose([vague], rounds=10).name
    'ERM'
    """
    limits: dict[str, float] = {}
    for key, limit in LIMITS.items():
        if rounds >= 2 and any(key in one.differences for one in contenders):
            matrix = (correlation or {}).get(key)
            limits[key] = critical_value(np.eye(len(contenders)) if matrix is None else matrix, rounds - 1, limit.alpha)
    refused: dict[str, str] = {}
    better: dict[str, list[str]] = {}
    for one in contenders:
        better[one.name] = [key for key in LIMITS if _is_better(key, one, limits)]
        why = _harm(one)
        if why is None and not better[one.name]:
            why = "no gain beyond what picking the best of all explains"
        if why is not None:
            refused[one.name] = why
    left = [one for one in contenders if one.name not in refused]
    if left:
        best = max(left, key=_worth)
        return Choice(best.name, _praise(best, better[best.name], len(contenders), rounds, baseline), refused)
    return Choice(baseline, _caution(contenders, better, refused, rounds, baseline), refused)


def case_of(
    bounded: Mapping[str, Difference],
    reweighted: Mapping[str, Difference],
    *,
    smallest_class: float | None,
    finished: bool = True,
) -> tuple[str, str]:
    """Which case the data are, and the numbers that say so.

    Parameters
    ----------
    bounded: figure to the average difference to ERM of objectives that bound a row's pull (SoftAD).
    reweighted: the same of objectives under which hard rows pull more (CVaR, chi-square, tilted).
    smallest_class: size of the rarest class, as a share of the average class; None for regression.
    finished: whether ERM's training was ended by early stopping. Before that no row is overfit, and an objective with
        smaller gradients on hard rows may only be quicker.

    >>> case_of({"tail": Difference(-0.1, 0.02, 10)}, {}, smallest_class=0.3)[0]
    'hard rows look like noise'
    >>> case_of({"tail": Difference(-0.1, 0.02, 10), "balanced_accuracy": Difference(-0.04, 0.01, 10)}, {},
    ...         smallest_class=0.03)[0]
    'rare class'
    """
    if not finished:
        return (
            UNFINISHED,
            "ERM was still improving when the epochs ended, so that its hard rows cannot be overfit noise",
        )
    # Several figures of two groups are looked at: each bound at 99 %.
    loses = [key for key in (BALANCED.key, RECALL.key) if key in bounded and bounded[key].bounds(0.99)[1] < 0.0]
    helped = [key for key in (BALANCED.key, RECALL.key) if key in reweighted and reweighted[key].bounds(0.99)[0] > 0.0]
    calmer = [key for key in (TAIL.key, MEAN.key) if key in bounded and bounded[key].bounds(0.99)[1] < 0.0]
    learnt = [key for key in (TAIL.key, MEAN.key) if key in reweighted and reweighted[key].bounds(0.99)[1] < 0.0]
    bound_words = "bounding the pull of hard rows (SoftAD, on average over its settings)"
    pull_words = "giving hard rows more weight (CVaR, chi-square, tilted, on average)"
    said = [f"{bound_words} moves {_moved(key, bounded[key])}" for key in (*loses, *calmer)]
    said += [f"{pull_words} moves {_moved(key, reweighted[key])}" for key in (*helped, *learnt)]
    words = "; ".join(said)
    if loses or (helped and not calmer):
        rare = smallest_class is not None and smallest_class < 0.5
        return (RARE if rare else LEARNABLE), f"the rows with large losses carry a class of their own: {words}"
    if calmer:
        return NOISE, f"the rows with large losses look like noise that is overfit: {words}"
    if learnt:
        return LEARNABLE, f"the rows with large losses can be learnt: {words}"
    return NO_DIFFERENCE, "neither bounding nor raising the pull of hard rows changes a figure measurably"


def _is_better(key: str, one: Contender, limits: Mapping[str, float]) -> bool:
    if key not in one.differences or key not in limits:
        return False
    gain, ratio = _signed(key, one.differences[key])
    return gain >= LIMITS[key].gain and ratio > limits[key]


def _harm(one: Contender) -> str | None:
    """The first figure in which the candidate is, or could be, worse than allowed."""
    for key, limit in LIMITS.items():
        if key not in one.differences:
            continue
        found = one.differences[key]
        low, high = found.bounds(CONFIDENCE)
        loss = -_signed(key, found)[0]
        worst = -low if FIGURES[key].larger_is_better else high
        if loss > limit.loss or worst > limit.worst:
            title, points = FIGURES[key].title, FIGURES[key].larger_is_better
            allowed = f"{limit.worst * 100:.3g} {'points' if points else '%'}"
            if loss > limit.loss:
                return (
                    f"{title} worse by {_amount(loss, points)} (could be {_amount(worst, points)}; allowed: {allowed})"
                )
            return f"{title} could be worse by {_amount(worst, points)} (allowed: {allowed})"
    return None


def _signed(key: str, found: Difference) -> tuple[float, float]:
    """Gain and its ratio to the error, positive where the candidate is better."""
    sign = 1.0 if FIGURES[key].larger_is_better else -1.0
    return sign * found.value, sign * found.ratio


def _worth(one: Contender) -> float:
    """Relative gains of mean and tail, and of the rates, in one number."""
    return sum(_signed(key, found)[0] for key, found in one.differences.items() if key in LIMITS)


def _praise(best: Contender, better: Sequence[str], others: int, rounds: int, baseline: str) -> str:
    gains = "; ".join(f"{_moved(key, best.differences[key])}" for key in better)
    rest = [key for key in LIMITS if key in best.differences and key not in better]
    beside = "; ".join(_moved(key, best.differences[key]) for key in rest)
    return (
        f"{best.name}: better than {baseline} by more than chance and the choice among {others} candidates explain, "
        f"over {rounds} rounds: {gains}." + (f" Beside it: {beside}." if beside else "")
    )


def _caution(
    contenders: Sequence[Contender],
    better: Mapping[str, Sequence[str]],
    refused: Mapping[str, str],
    rounds: int,
    baseline: str,
) -> str:
    start = f"{baseline} with early stopping and temperature scaling"
    if rounds < 3 or not contenders:
        return f"{start}: {rounds} rounds and {len(contenders)} other candidates are too few to say more."
    gained = [one for one in contenders if better[one.name]]
    if gained:
        near = max(gained, key=_worth)
        gains = "; ".join(_moved(key, near.differences[key]) for key in better[near.name])
        return f"{start}: {near.name} is better in one respect ({gains}), but {refused[near.name]}."
    tails = [one for one in contenders if TAIL.key in one.differences]
    near = max(
        tails or list(contenders), key=lambda one: _signed(TAIL.key, one.differences[TAIL.key])[1] if tails else 0
    )
    closest = f" Closest is {near.name}: {_moved(TAIL.key, near.differences[TAIL.key])}." if tails else ""
    return (
        f"{start}: over {rounds} rounds none of the {len(contenders)} other candidates is better by more than "
        f"chance and the choice among them explain.{closest}"
    )


def _moved(key: str, found: Difference) -> str:
    figure: FigureName = FIGURES[key]
    unit = "points" if figure.larger_is_better else "%"
    low, high = found.bounds(0.975)
    return f"{figure.title} {found.value * 100:+.1f} {unit} (95 % interval {low * 100:+.1f} to {high * 100:+.1f})"


def _amount(value: float, points: bool) -> str:
    return f"{value * 100:.1f} {'points' if points else '%'}"
