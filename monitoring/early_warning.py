"""An early sign, before any label has come: does what the model sees and says differ from the reference?

It is advisory and never an alarm: nothing of the alarm budget is spent on it, and nothing is retrained for it. A model
can be sure and wrong, and features can move without harm; so each sign is kept, and compared with the truth once the
labels are there (`track_record`).

Four kinds of signs, at most `false_rate` of unchanged windows show any of them:

- predicted_loss: the loss that the model itself expects is higher (ranks of the two samples, Mann and Whitney);
- confidence: more rows lie below what was the least sure tenth of the reference;
- numeric and categorical features: the distance between the distributions (Kolmogorov and Smirnov; chi-squared).

Each must also be large enough to matter, so that a hundred thousand rows do not make a sign of a trifle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import xlogy

Floats = NDArray[np.float64]

MODEL_SIGNS = ("predicted_loss", "confidence")
UNSURE = 0.1
"""The least sure tenth of the reference."""

LEAST_RATIO = {"predicted_loss": 1.10, "confidence": 1.25}
"""How many times the reference's figure it must be to matter; as for the alarm's mean and share of hard rows."""

LEAST_DISTANCE = 0.1
"""How far a feature must have moved to matter: the share of the rows that would have to change."""

MANY_VALUES = 50
"""Categories beyond the most frequent ones are compared together."""


@dataclass(frozen=True)
class Sign:
    """One comparison.

    Attributes
    ----------
    kind: predicted_loss | confidence | feature.
    column: the feature; None for the model's own signs.
    now, before: mean predicted loss, or share of unsure rows; for a feature the distance, and 0.
    p_value: how often an unchanged window shows as much.
    shown: beyond chance after the correction for all comparisons, and large enough to matter.
    """

    kind: str
    column: str | None
    now: float
    before: float
    p_value: float
    shown: bool


@dataclass(frozen=True)
class EarlyWarning:
    """What can be told of a window before its labels.

    Attributes
    ----------
    signs: all that were looked at, those that show first, and by `p_value`.
    predicted_loss, reference_loss: means of the losses that the model itself expects; None where it cannot tell.
    rows, reference_rows: how many were compared.
    """

    signs: tuple[Sign, ...]
    predicted_loss: float | None
    reference_loss: float | None
    rows: int
    reference_rows: int

    @property
    def warns(self) -> bool:
        """Any sign shows."""
        return any(sign.shown for sign in self.signs)


@dataclass(frozen=True)
class TrackRecord:
    """How often early signs were right, over the windows whose labels came.

    Attributes
    ----------
    windows: how many.
    warned, right: windows with a sign, and those of them that had changed.
    changed, missed: windows that had changed, and those of them without a sign.
    """

    windows: int
    warned: int
    right: int
    changed: int
    missed: int

    @property
    def agreed(self) -> int:
        """Windows in which sign and truth said the same."""
        return self.right + self.windows - self.warned - self.missed


def track_record(pairs: Iterable[tuple[bool, bool]]) -> TrackRecord:
    """Count (sign shown, window had changed) pairs.

    >>> record = track_record([(True, True), (True, False), (False, False), (False, True)])
    >>> record.windows, record.warned, record.right, record.missed, record.agreed
    (4, 2, 1, 1, 2)
    """
    known = list(pairs)
    warned = [changed for shown, changed in known if shown]
    quiet = [changed for shown, changed in known if not shown]
    return TrackRecord(len(known), len(warned), sum(warned), sum(warned) + sum(quiet), sum(quiet))


def expected_loss(probabilities: ArrayLike) -> Floats:
    """The log loss that a classifier itself expects of each row: the entropy of its probabilities.

    Parameters
    ----------
    probabilities: (n, k), rows summing to 1; calibrated, or the expectation is off.

    >>> expected_loss([[0.5, 0.5], [1.0, 0.0]]).round(3)
    array([0.693, 0.   ])
    """
    table = np.asarray(probabilities, dtype=np.float64)
    entropy: Floats = -xlogy(table, table).sum(axis=1) + 0.0
    return entropy


def expected_by_value(values: ArrayLike, reference_values: ArrayLike, reference_losses: ArrayLike) -> Floats:
    """The loss that rows with such a predicted value had in the reference: its mean in each tenth of the values.

    Parameters
    ----------
    values: (n,) predicted now.
    reference_values, reference_losses: (m,), m at least 1.

    >>> expected_by_value([1.0, 9.0], np.arange(10.0), np.arange(10.0)).tolist()
    [1.0, 9.0]
    """
    before, losses = np.asarray(reference_values, dtype=np.float64), np.asarray(reference_losses, dtype=np.float64)
    edges = np.unique(np.quantile(before, np.arange(1, 10) / 10, method="inverted_cdf"))
    places = np.searchsorted(edges, before, side="left")
    counts = np.bincount(places, minlength=len(edges) + 1)
    sums = np.bincount(places, weights=losses, minlength=len(edges) + 1)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), losses.mean())
    found: Floats = means[np.searchsorted(edges, np.asarray(values, dtype=np.float64), side="left")]
    return found


def warn_early(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    numeric: Sequence[str] = (),
    categorical: Sequence[str] = (),
    predicted: tuple[ArrayLike, ArrayLike] | None = None,
    confidence: tuple[ArrayLike, ArrayLike] | None = None,
    false_rate: float = 0.01,
) -> EarlyWarning:
    """Compare a window with the reference, without labels.

    Parameters
    ----------
    current, reference: rows with the features; a column that either lacks is passed over.
    numeric, categorical: features to compare. What is missing counts as a value.
    predicted: losses that the model expects of the rows of window and reference, (n,) and (m,).
    confidence: the highest probability of each row, (n,) and (m,).
    false_rate: share of unchanged windows that show a sign, at most; half for the model's signs, half for features.

    Raises
    ------
    ValueError: an empty frame, or `false_rate` out of range.

    >>> rng = np.random.default_rng(0)
    >>> before, now = pd.DataFrame({"x": rng.normal(size=500)}), pd.DataFrame({"x": rng.normal(1, 1, size=300)})
    >>> warning = warn_early(now, before, numeric=["x"])
    >>> warning.warns, warning.signs[0].column, round(warning.signs[0].now, 1)
    (True, 'x', 0.4)
    >>> warn_early(before, before, numeric=["x"]).warns
    False
    """
    if not 0.0 < false_rate < 1.0:
        raise ValueError(f"false_rate is {false_rate}; it must lie between 0 and 1")
    for name, frame in (("current", current), ("reference", reference)):
        if frame.empty:
            raise ValueError(f"{name} has no rows; it must have at least one")
    found: list[Sign] = []
    own = [] if predicted is None else [_predicted(*(np.asarray(each, dtype=np.float64) for each in predicted))]
    own += [] if confidence is None else [_confidence(*(np.asarray(each, dtype=np.float64) for each in confidence))]
    features = [
        _feature(name, current[name], reference[name], is_number=name in numeric)
        for name in dict.fromkeys([*numeric, *categorical])
        if name in current and name in reference
    ]
    for family in (own, features):
        limit = false_rate / (2 * max(len(family), 1))
        found += [_shown(sign, limit) for sign in family]
    found.sort(key=lambda sign: (not sign.shown, sign.p_value))
    means = (None, None) if predicted is None else tuple(float(np.mean(np.asarray(each))) for each in predicted)
    return EarlyWarning(tuple(found), means[0], means[1], len(current), len(reference))


def _predicted(now: Floats, before: Floats) -> Sign:
    test = stats.mannwhitneyu(now, before, alternative="greater", method="asymptotic")
    return Sign("predicted_loss", None, float(now.mean()), float(before.mean()), float(test.pvalue), shown=False)


def _confidence(now: Floats, before: Floats) -> Sign:
    # The limit is an estimate from the reference, whose noise is counted; ties at 1.0 keep the shares honest.
    limit = float(np.quantile(before, UNSURE))
    share, usual = float((now < limit).mean()), float((before < limit).mean())
    pooled = (share * now.size + usual * before.size) / (now.size + before.size)
    error = np.sqrt(max(pooled * (1 - pooled), 1e-12) * (1 / now.size + 1 / before.size))
    return Sign("confidence", None, share, usual, float(stats.norm.sf((share - usual) / error)), shown=False)


def _feature(name: str, now: pd.Series, before: pd.Series, *, is_number: bool) -> Sign:
    distance, p_value = _numbers(now, before) if is_number else _categories(now, before)
    return Sign("feature", name, distance, 0.0, p_value, shown=False)


def _numbers(now: pd.Series, before: pd.Series) -> tuple[float, float]:
    # What is missing, or no number, lies below everything: a sensor that falls silent is a shift.
    here, there = (
        np.nan_to_num(pd.to_numeric(each, errors="coerce").to_numpy(np.float64, na_value=np.nan), nan=-np.inf,
                      posinf=np.inf, neginf=-np.inf)
        for each in (now, before)
    )  # fmt: skip
    return _smirnov(np.sort(here), np.sort(there))


def _smirnov(here: Floats, there: Floats) -> tuple[float, float]:
    both = np.concatenate([here, there])
    shares = [np.searchsorted(each, both, side="right") / each.size for each in (here, there)]
    distance = float(np.abs(shares[0] - shares[1]).max())
    size = here.size * there.size / (here.size + there.size)
    return distance, float(stats.kstwobign.sf(distance * np.sqrt(size)))


def _categories(now: pd.Series, before: pd.Series) -> tuple[float, float]:
    both = pd.concat([now, before], ignore_index=True).astype(object)
    codes, _ = pd.factorize(both.where(both.notna(), None).map(lambda each: None if each is None else str(each)))
    codes = np.where(codes < 0, codes.max() + 1, codes)
    order = np.argsort(-np.bincount(codes), kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.minimum(np.arange(len(order)), MANY_VALUES)
    codes = rank[codes]
    counts = np.stack([np.bincount(part, minlength=codes.max() + 1) for part in (codes[: len(now)], codes[len(now) :])])
    if counts.shape[1] < 2:
        return 0.0, 1.0
    shares = counts / counts.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    return distance, float(stats.chi2_contingency(counts, correction=False).pvalue)


def _shown(sign: Sign, limit: float) -> Sign:
    if sign.kind == "feature":
        large = sign.now >= LEAST_DISTANCE
    else:
        large = sign.now >= LEAST_RATIO[sign.kind] * sign.before and sign.now > sign.before
    return Sign(sign.kind, sign.column, sign.now, sign.before, sign.p_value, bool(large and sign.p_value < limit))
