"""The gates between a challenger and the champion's place: paired comparisons on the same held-out rows.

Arrays in, verdicts out; nothing here knows a table, a registry or a model. A gate holds where the bootstrap shows
the challenger *non-inferior*: the whole one-sided interval of the difference lies within the margin, so that few
rows, and hence a wide interval, never let a worse model pass. All gates must hold, so none needs a correction for
the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flows.comparison import Comparison, Gate, Margins
from flows.paired_shares import caught_at, lowest_difference
from flows.resampling import (
    Statistic,
    hit_differences,
    holm,
    recall_differences,
    relative_changes,
    resample_weights,
    slice_excess,
)
from softad.recall import defect_scores

SHOWN_SMALL_SLICES = 50
"""How many slices with too few rows are listed by name."""


def judge(comparison: Comparison, margins: Margins, *, seed: int = 0) -> tuple[Gate, ...]:
    """All gates for one challenger; it may replace the champion only where every gate passed.

    Parameters
    ----------
    comparison: both models on the same rows, none of which either was fitted, tuned or calibrated on.
    margins: what may not be excluded.
    seed: of the resampling; the same seed gives the same verdict.

    Returns
    -------
    Gates in the order mean, tail, stability, recall (or misses), slices. With too few rows, a challenger that
    equals the champion, or a loss that is not finite, the one gate that says so.

    >>> rng = np.random.default_rng(0)
    >>> old = rng.exponential(size=4000)
    >>> new = old * 0.8
    >>> [gate.name for gate in judge(Comparison(old, new, champion_errors=old, challenger_errors=new), Margins())]
    ['mean', 'tail', 'stability', 'misses']
    >>> [gate.passed for gate in judge(Comparison(old, new * 1.4), Margins())][:2]
    [False, False]
    >>> judge(Comparison(old, old), Margins())[0].reason
    'the challenger has the same loss as the champion on each of 4000 held-out rows: there is nothing to gain'
    """
    refusal = _refusal(comparison, margins)
    if refusal is not None:
        return (refusal,)
    rows, sure = len(comparison.champion_losses), margins.confidence
    masks = _slice_masks(comparison)
    gated = [name for name, mask in masks.items() if mask.sum() >= margins.min_slice_rows]
    recall = _recall(comparison, margins)
    statistics: dict[str, Statistic] = {
        "losses": relative_changes(comparison.champion_losses, comparison.challenger_losses),
        "slices": slice_excess(
            comparison.champion_losses, comparison.challenger_losses, [masks[name] for name in gated], margins.slices
        ),
    }
    if recall is not None:
        statistics["recall"] = recall.statistic
    tolerance = _tolerance(comparison)
    if tolerance is not None:
        statistics["misses"] = _misses(comparison, tolerance)
    once = {name: statistic(np.ones((1, rows), dtype=np.float32))[0] for name, statistic in statistics.items()}
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in statistics}
    for weights in resample_weights(rows, comparison.groups, margins.resamples, np.random.default_rng(seed)):
        for name, statistic in statistics.items():
            drawn[name].append(statistic(weights))
    spread = {name: np.vstack(parts) for name, parts in drawn.items()}
    kinds = (("mean", margins.mean), ("tail", margins.tail), ("stability", margins.stability))
    result = [
        _loss_gate(
            name,
            figure=float(once["losses"][column]),
            drawn=spread["losses"][:, column],
            margin=margin,
            sure=sure,
            rows=rows,
        )
        for column, (name, margin) in enumerate(kinds)
    ]
    if recall is not None:
        result += _recall_gates(recall, once["recall"], spread["recall"], margins)
    elif comparison.labels is not None:
        result.append(_no_defects(rows))
    if tolerance is not None:
        result.append(_misses_gate(comparison, tolerance, float(once["misses"][0]), spread["misses"][:, 0], margins))
    result += _slice_gates(comparison, {name: masks[name] for name in gated}, spread["slices"], margins)
    return (*result, *_small_slices(masks, gated, margins))


def beats_constant(
    losses: np.ndarray,
    constant_losses: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    confidence: float = 0.95,
    resamples: int = 2_000,
    min_rows: int = 100,
    seed: int = 0,
) -> Gate:
    """The gate for a first champion: a smaller mean loss than a predictor that knows only the classes' shares.

    Parameters
    ----------
    losses, constant_losses: shape (n,), of the model and of the constant predictor on the same held-out rows.

    >>> rng = np.random.default_rng(0)
    >>> beats_constant(rng.exponential(size=500), rng.exponential(1.5, size=500)).passed
    True
    >>> beats_constant(rng.exponential(size=500), rng.exponential(size=500)).passed
    False
    """
    name, rows = "constant predictor", len(losses)
    if rows < min_rows:
        return Gate(name, None, None, None, 0.0, False, _too_few(rows, min_rows), rows=rows)
    if not np.isfinite(losses).all():
        return Gate(name, None, None, None, 0.0, False, _not_finite(losses), rows=rows)
    change = relative_changes(constant_losses, losses)
    drawn = [
        change(weights)[:, 0] for weights in resample_weights(rows, groups, resamples, np.random.default_rng(seed))
    ]
    figure = float(change(np.ones((1, rows), dtype=np.float32))[0, 0])
    low, high = _limits(np.concatenate(drawn), confidence)
    passed = bool(high < 0)
    reason = (
        f"mean loss {_percent(figure)} against a predictor that knows only how frequent each answer is "
        f"(at most {_percent(high)} at {confidence:.0%} confidence); it must be lower"
    )
    return Gate(name, figure, low, high, 0.0, passed, reason, rows=rows)


def _refusal(comparison: Comparison, margins: Margins) -> Gate | None:
    old, new = comparison.champion_losses, comparison.challenger_losses
    rows = len(old)
    if rows < margins.min_rows:
        return Gate("held-out rows", None, None, None, None, False, _too_few(rows, margins.min_rows), rows=rows)
    for losses in (old, new):
        if not np.isfinite(losses).all():
            return Gate("finite losses", None, None, None, None, False, _not_finite(losses), rows=rows)
    if np.array_equal(old, new):
        reason = (
            f"the challenger has the same loss as the champion on each of {rows} held-out rows: "
            "there is nothing to gain"
        )
        return Gate("difference", 0.0, None, None, None, False, reason, rows=rows)
    return None


def _too_few(rows: int, needed: int) -> str:
    return f"only {rows} held-out rows are labelled and at least {needed} are needed: wait for more labels"


def _not_finite(losses: np.ndarray) -> str:
    return f"{int((~np.isfinite(losses)).sum())} of {len(losses)} held-out rows have a loss that is not finite"


def _loss_gate(name: str, *, figure: float, drawn: np.ndarray, margin: float, sure: float, rows: int) -> Gate:
    low, high = _limits(drawn, sure)
    passed = bool(high <= margin)
    words = {"mean": "mean loss", "tail": "mean loss of the worst tenth", "stability": "spread of the losses"}[name]
    reason = f"{words} {_percent(figure)} (at most {_percent(high)} at {sure:.0%} confidence); allowed: {margin:+.1%}"
    return Gate(name, figure, low, high, margin, passed, reason, rows=rows)


@dataclass(frozen=True)
class _Recall:
    """The gated and the reported recalls: names, row counts, and their differences under resampled weights.

    `lost` and `won` are the rows that only the champion, or only the challenger, gets right.
    """

    names: tuple[str, ...]
    rows: tuple[int, ...]
    gated: tuple[bool, ...]
    statistic: Statistic
    lost: tuple[int, ...]
    won: tuple[int, ...]
    at: str

    def low(self, column: int, drawn: np.ndarray, confidence: float) -> float:
        """The lower of two limits: the bootstrap's, which knows how uncertain the threshold is, and the paired one."""
        low = _limits(drawn, confidence)[0]
        lost, won = self.lost[column], self.won[column]
        # Where not one answer changed, nothing speaks against the challenger, however few the rows.
        return min(low, lowest_difference(lost, won, self.rows[column], confidence)) if lost or won else low


def _recall(comparison: Comparison, margins: Margins) -> _Recall | None:
    labels = comparison.labels
    old, new = comparison.champion_probabilities, comparison.challenger_probabilities
    if labels is None or old is None or new is None:
        return None
    found = {name: labels == name for name in comparison.classes if name != comparison.normal}
    found = {name: mask for name, mask in found.items() if mask.any()}
    if not found:
        return None
    gated = {name: int(mask.sum()) >= margins.min_class_rows for name, mask in found.items()}
    if not any(gated.values()):
        found["all defects"] = np.logical_or.reduce(list(found.values()))
        gated["all defects"] = True
    masks = list(found.values())
    good = labels == comparison.normal if comparison.normal is not None else np.zeros(len(labels), dtype=bool)
    if comparison.normal is not None and good.any():
        column = comparison.classes.index(comparison.normal)
        statistic = recall_differences(old, new, masks, good, column)
        rejected = int((old.argmax(axis=1) != column)[good].sum())
        hits = [caught_at(defect_scores(each, column), good, rejected) for each in (old, new)]
        rate = rejected / int(good.sum())
        at = f"at the champion's false-reject rate of {rate:.2%}"
    else:
        # Without good rows there is no false-reject rate; a hit is the right class being the most probable.
        column_of = {name: number for number, name in enumerate(comparison.classes)}
        truth = np.array([column_of.get(str(name), -1) for name in labels])
        hits = [each.argmax(axis=1) == truth for each in (old, new)]
        statistic = hit_differences(hits[0], hits[1], masks)
        at = "by the most probable class"
    rows, lost, won = (
        tuple(int((mask & counted).sum()) for mask in masks)
        for counted in (np.ones(len(labels), dtype=bool), hits[0] & ~hits[1], hits[1] & ~hits[0])
    )
    return _Recall(tuple(found), rows, tuple(gated.values()), statistic, lost, won, at)


def _recall_gates(recall: _Recall, once: np.ndarray, drawn: np.ndarray, margins: Margins) -> list[Gate]:
    gates = []
    for column, name in enumerate(recall.names):
        figure, rows = float(once[column]), recall.rows[column]
        high = _limits(drawn[:, column], margins.confidence)[1]
        low = recall.low(column, drawn[:, column], margins.confidence)
        words = f"recall of {name} {_points(figure)} on {rows} rows {recall.at}"
        if not recall.gated[column]:
            passed = True
            reason = f"{words}; reported only: fewer than {margins.min_class_rows} held-out rows"
        elif rows < margins.min_class_rows:
            # No interval of so few rows lies within a point; the estimate itself must not be worse than the margin.
            passed = figure >= -margins.recall
            reason = f"{words}; too few for an interval, so the figure itself may fall {_points(-margins.recall)}"
        else:
            passed = low >= -margins.recall
            reason = (
                f"{words} (at least {_points(low)} at {margins.confidence:.0%} confidence); "
                f"allowed: {_points(-margins.recall)}"
            )
        gates.append(
            Gate(f"recall: {name}", figure, low, high, margins.recall, passed, reason, recall.gated[column], rows)
        )
    return gates


def _no_defects(rows: int) -> Gate:
    reason = f"none of {rows} held-out rows has a defect, so recall cannot be judged: wait for more labels"
    return Gate("recall", None, None, None, None, False, reason, rows=rows)


def _tolerance(comparison: Comparison) -> float | None:
    if comparison.champion_errors is None or comparison.challenger_errors is None:
        return None
    if comparison.tolerance is not None:
        return comparison.tolerance
    return float(np.quantile(comparison.champion_errors, 0.9))


def _missed(comparison: Comparison, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Which rows the champion, and which the challenger, misses."""
    old, new = comparison.champion_errors, comparison.challenger_errors
    if old is None or new is None:
        raise ValueError("champion_errors and challenger_errors must both be given to count misses")
    return old > tolerance, new > tolerance


def _misses(comparison: Comparison, tolerance: float) -> Statistic:
    old, new = _missed(comparison, tolerance)
    return hit_differences(old, new, [np.ones(len(old), dtype=bool)])


def _misses_gate(comparison: Comparison, tolerance: float, figure: float, drawn: np.ndarray, margins: Margins) -> Gate:
    low, high = _limits(drawn, margins.confidence)
    old, new = _missed(comparison, tolerance)
    if (old != new).any():
        lost, won = int((new & ~old).sum()), int((old & ~new).sum())
        high = max(high, -lowest_difference(lost, won, len(old), margins.confidence))
    source = "" if comparison.tolerance is not None else ", the error that the champion exceeds in a tenth of the rows"
    reason = (
        f"share of rows with an error above {tolerance:.4g}{source}: {_points(figure)} "
        f"(at most {_points(high)} at {margins.confidence:.0%} confidence); allowed: {_points(margins.recall)}"
    )
    return Gate(
        "misses",
        figure,
        low,
        high,
        margins.recall,
        high <= margins.recall,
        reason,
        rows=len(comparison.champion_losses),
    )


def _slice_masks(comparison: Comparison) -> dict[str, np.ndarray]:
    """Name -> rows of every value of every protected column, largest first."""
    masks = {}
    for column, values in comparison.slices.items():
        texts = np.asarray(values).astype(str)
        for value in np.unique(texts):
            masks[f"slice {column}={value}"] = texts == value
    return dict(sorted(masks.items(), key=lambda item: (-int(item[1].sum()), item[0])))


def _slice_gates(
    comparison: Comparison, masks: Mapping[str, np.ndarray], drawn: np.ndarray, margins: Margins
) -> list[Gate]:
    """A slice fails only where it is *shown* worse than the margin, Holm's correction over the slices."""
    shares = [_p_value(drawn[:, column]) for column in range(len(masks))]
    failed = holm(np.array(shares), 1 - margins.confidence)
    gates = []
    for column, (name, mask) in enumerate(masks.items()):
        old = float(comparison.champion_losses[mask].mean())
        new = float(comparison.challenger_losses[mask].mean())
        figure = new / old - 1 if old > 0 else (np.inf if new > 0 else 0.0)
        # The statistic is new - (1 + margin) old, so its limits over old, plus the margin, are the change's.
        limits = _limits(drawn[:, column], margins.confidence)
        low, high = (limit / old + margins.slices if old > 0 else figure for limit in limits)
        verdict = "shown worse than" if failed[column] else "not shown worse than"
        reason = (
            f"{name}: mean loss {_percent(figure)} on {int(mask.sum())} rows, {verdict} {margins.slices:+.0%} "
            f"(p = {shares[column]:.2g}, {len(masks)} slices)"
        )
        gates.append(
            Gate(name, float(figure), low, high, margins.slices, not failed[column], reason, rows=int(mask.sum()))
        )
    return gates


def _small_slices(masks: Mapping[str, np.ndarray], gated: list[str], margins: Margins) -> list[Gate]:
    small = [name for name in masks if name not in gated]
    gates = [
        Gate(
            name, None, None, None, None, True,
            f"{name}: {int(masks[name].sum())} held-out rows; reported only: fewer than {margins.min_slice_rows}",
            gated=False, rows=int(masks[name].sum()),
        )
        for name in small[:SHOWN_SMALL_SLICES]
    ]  # fmt: skip
    if len(small) > SHOWN_SMALL_SLICES:
        more = len(small) - SHOWN_SMALL_SLICES
        reason = f"{more} further slices have fewer than {margins.min_slice_rows} held-out rows; none is gated"
        gates.append(Gate("further slices", None, None, None, None, True, reason, gated=False))
    return gates


def _limits(drawn: np.ndarray, confidence: float) -> tuple[float, float]:
    """Lower and upper limit, each one-sided at `confidence`; drawn values, so that infinite ones do no harm."""
    low = np.quantile(drawn, 1 - confidence, method="lower")
    return float(low), float(np.quantile(drawn, confidence, method="higher"))


def _p_value(drawn: np.ndarray) -> float:
    """One-sided: how likely the slice is within its margin; beyond what the resamples resolve, by the normal tail."""
    floor = 1 / (len(drawn) + 1)
    share = (1 + int((drawn <= 0).sum())) / (len(drawn) + 1)
    deviation = float(drawn.std())
    if share > floor or deviation == 0:
        return share
    return min(floor, 0.5 * math.erfc(float(drawn.mean()) / deviation / math.sqrt(2)))


def _percent(change: float) -> str:
    return "grew from zero" if math.isinf(change) else f"{change:+.1%}"


def _points(change: float) -> str:
    return f"{change * 100:+.1f} points"
