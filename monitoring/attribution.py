"""Where the excess tail loss sits: one machine, one product, one range of the temperature, or everywhere.

The tail begins at t, a quantile of the reference losses; a row's tail loss is relu(loss - t). A slice value s with
n_s rows in the window carries the excess

    X_s = sum over its rows of relu(loss - t)  -  n_s * e_s

where e_s is what the reference says that a row of s carries: its own mean there, shrunk to the mean of all rows by
as much as the reference gives no reason to tell the values apart (empirical Bayes). Its share is X_s / X, and it is
set against its share of the rows, and against the share of the tail loss that it always carried.

Shares are sums of a few large losses, so they are a poor guide to *which* value comes first. The ranking therefore
uses where the losses lie among the reference's (normal scores of their ranks), beside two scores of the tail for a
value whose bulk did not move. A value is `significant` by its excess alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri

from monitoring.slice_ranges import range_column
from monitoring.slice_statistics import (
    HANDICAP,
    RANKING_HANDICAP,
    SCORES,
    Floats,
    SliceColumn,
    Usual,
    code_column,
    evidence,
    powers_of,
    resampled_excess,
    row_scores,
)

GROWTH = 1.25
"""A value grew where its row share is significantly, and at least this many times, its share in the reference."""


@dataclass(frozen=True)
class Finding:
    """What one value of one slice column carries.

    Attributes
    ----------
    column, value: the slice; "(missing)" for rows without a value, "(rare values)" for all values too rare to judge.
    share: of the excess tail loss of all rows, cut to [0, 1].
    low, high: interval of `share`, corrected for the number of values tried. `low` is what judgements use; for a value
        without a hard row in the window `high` is too small.
    row_share, reference_row_share: share of the rows, in the window and in the reference.
    rows: rows in the window.
    grew: its share of the rows rose (significantly, and to at least `GROWTH` times); this alone is no blame.
    significant: a row of it carries more excess than a row elsewhere, beyond chance after the correction, and more
        than can be explained by the value having always been a hard one.
    usual_share: share of the tail loss that its rows would carry if they were as in the reference.
    growth_share: share of the excess that is only there because hard values have more rows than before and easy ones
        fewer; negative where the value's change of rows made the excess smaller.
    evidence: what the values are ranked by, in standard errors.
    is_range: the column is a numeric feature and the value a range of it.
    """

    column: str
    value: str
    share: float
    low: float
    high: float
    row_share: float
    rows: int
    reference_row_share: float
    grew: bool
    significant: bool
    usual_share: float
    growth_share: float
    evidence: float
    is_range: bool = False


@dataclass(frozen=True)
class Attribution:
    """Findings in the order in which to look at them, and what they are shares of.

    Attributes
    ----------
    findings: ranked; all that are significant or grew, and others up to `keep`.
    total_excess: tail loss of the window's rows above what the reference says as many rows carry; may be negative.
    tried: number of (column, value) pairs that were compared.
    threshold: the loss at which the tail begins.
    rows, reference_rows: how many rows were compared.
    """

    findings: tuple[Finding, ...]
    total_excess: float
    tried: int
    threshold: float
    rows: int
    reference_rows: int


def attribute(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    slices: Sequence[str],
    ranges: Sequence[str] = (),
    loss: str = "loss",
    level: float = 0.9,
    confidence: float = 0.95,
    resamples: int = 500,
    seed: int = 0,
    keep: int = 50,
) -> Attribution:
    """Share the excess tail loss of a window out among the values of its slice columns, and ranges of its features.

    Half of the error that `confidence` allows is for the slice columns and half for the ranges, so that many features
    do not make a machine harder to name.

    Parameters
    ----------
    current, reference: rows with a column of losses and the slice columns; any number of rows each.
    slices: columns to try. A column with one value in both frames tells nothing and is passed over.
    ranges: numeric columns to try by ranges (see `monitoring.slice_ranges`).
    loss: name of the column of losses, finite and at least 0.
    level: the tail begins at this quantile of the reference losses, in (0, 1).
    confidence: of the intervals and of `significant`, over all pairs tried together.
    resamples: bootstrap resamples, at least 100.
    seed: of the bootstrap.
    keep: findings beyond this number are kept only where they are significant or grew.

    Raises
    ------
    ValueError: an empty frame, a missing column, a loss that is negative or not finite, an argument out of range.

    >>> rng = np.random.default_rng(0)
    >>> def rows(n):
    ...     machines = rng.choice(["M01", "M02", "M03", "M04"], n)
    ...     return pd.DataFrame({"machine": machines, "loss": rng.exponential(size=n)})
    >>> reference, window = rows(2000), rows(500)
    >>> window.loc[window["machine"] == "M03", "loss"] *= 3
    >>> first = attribute(window, reference, slices=["machine"]).findings[0]
    >>> first.column, first.value, first.significant, first.share > 0.8
    ('machine', 'M03', True, True)
    """
    _check(level=level, confidence=confidence, resamples=resamples)
    now, before = (
        _losses(name, frame, loss, [*slices, *ranges])
        for name, frame in (("current", current), ("reference", reference))
    )
    threshold = float(np.quantile(before, level))
    tail, tail_before = np.maximum(now - threshold, 0.0), np.maximum(before - threshold, 0.0)
    scores, scores_before = row_scores(now, before, threshold)
    powers = powers_of(scores)
    coded = [code_column(current[name], reference[name], name) for name in slices]
    binned = [range_column(current[name], reference[name], name) for name in ranges]
    families = (
        (False, [column for column in coded if len(column.names) > 1]),
        (True, [column for column in binned if column is not None and len(column.names) > 1]),
    )
    sizes = [sum(len(column.names) for column in columns) for _, columns in families]
    tried = sum(sizes)
    total = float(tail.sum() - len(tail) * tail_before.mean())
    found: list[Finding] = []
    rng = np.random.default_rng(seed)
    for (is_range, columns), size in zip(families, sizes, strict=True):
        for column in columns:
            usual = Usual.of(tail_before, column.before, len(column.names))
            found += _findings(
                column,
                tail=tail,
                usual=usual,
                drawn=resampled_excess(tail, tail_before, column, usual, resamples=resamples, rng=rng),
                moved=evidence(powers, scores_before, column, handicaps=(HANDICAP, RANKING_HANDICAP)),
                tried=2 * size if all(sizes) else size,
                confidence=confidence,
                total=total,
                is_range=is_range,
            )
    found.sort(key=_place)
    kept = [item for place, item in enumerate(found) if place < keep or item.significant or item.grew]
    return Attribution(tuple(kept), total, tried, threshold, len(now), len(before))


def _place(item: Finding) -> tuple[bool, float, str, str]:
    """Order in which to look: what is beyond chance by how surely it carries more than its rows, then by evidence.

    With many rows a machine and its line are both beyond chance; the machine carries as much with fewer rows.
    """
    weight = item.low - item.row_share if item.significant else item.evidence
    return not item.significant, -weight, item.column, item.value


def _check(*, level: float, confidence: float, resamples: int) -> None:
    for name, value in (("level", level), ("confidence", confidence)):
        if not 0.0 < value < 1.0:
            raise ValueError(f"{name} is {value}; it must lie between 0 and 1")
    if resamples < 100:
        raise ValueError(f"resamples is {resamples}; it must be at least 100")


def _losses(name: str, frame: pd.DataFrame, loss: str, slices: Sequence[str]) -> Floats:
    if frame.empty:
        raise ValueError(f"{name} has no rows; it must have at least one")
    absent = [column for column in (loss, *slices) if column not in frame.columns]
    if absent:
        raise ValueError(f"{name} lacks the column {absent[0]!r}; it has {', '.join(map(str, frame.columns))}")
    values: Floats = frame[loss].to_numpy(dtype=float)
    wrong = int((~np.isfinite(values) | (values < 0)).sum())
    if wrong:
        raise ValueError(f"{name} has {wrong} losses that are negative or not finite; all must be at least 0")
    return values


def _findings(
    column: SliceColumn,
    *,
    tail: Floats,
    usual: Usual,
    drawn: Floats,
    moved: Floats,
    tried: int,
    confidence: float,
    total: float,
    is_range: bool,
) -> list[Finding]:
    rows, names, rows_before = column.rows, column.names, column.rows_before
    row_share, reference_share = rows / len(tail), rows_before / len(column.before)
    expected = rows * usual.mean
    excess = np.bincount(column.now, weights=tail, minlength=len(names)) - expected
    usual_share = expected / expected.sum() if expected.sum() > 0 else row_share
    # Where hard values lost rows, the excess of all rows is smaller than that of the values together: then the latter.
    # The mix of rows is what it is; the resamples leave it alone.
    mix = max(0.0, total - float(excess.sum()))
    share, shares_drawn = _shares(excess, excess.sum() + mix), _shares(drawn, drawn.sum(axis=1, keepdims=True) + mix)
    low, high = _interval(share, shares_drawn, tried=tried, confidence=confidence)
    base = np.maximum(row_share, usual_share)
    sure = [
        np.quantile(values, 1.0 - confidence, axis=0) > 0.0
        for values in (drawn, drawn - base * drawn.sum(axis=1, keepdims=True))
    ]
    significant = sure[0] & sure[1] & (moved[0] > float(ndtri(1.0 - (1.0 - confidence) / (tried * SCORES))))
    surprise = _surprise(rows, rows_before, len(tail), len(column.before))
    grew = (surprise > float(ndtri(1.0 - (1.0 - confidence) / tried))) & (row_share >= GROWTH * reference_share)
    growth = (rows - len(tail) * reference_share) * (usual.mean - usual.whole)
    return [
        Finding(
            column=column.name,
            value=names[code],
            share=float(share[code]),
            low=float(low[code]),
            high=float(high[code]),
            row_share=float(row_share[code]),
            rows=int(rows[code]),
            reference_row_share=float(reference_share[code]),
            grew=bool(grew[code]),
            significant=bool(significant[code]),
            usual_share=float(usual_share[code]),
            growth_share=float(growth[code] / total) if total > 0 else 0.0,
            evidence=float(moved[1][code]),
            is_range=is_range,
        )
        for code in range(len(names))
    ]


def _shares(excess: Floats, whole: Floats | float) -> Floats:
    """`excess` over `whole`, cut to [0, 1]; where there is no excess at all, a value that has some has all of it."""
    whole = np.asarray(whole)
    positive = whole > 0.0
    ratio = np.where(positive, excess / np.where(positive, whole, 1.0), np.where(excess > 0.0, 1.0, 0.0))
    clipped: Floats = np.clip(ratio, 0.0, 1.0)
    return clipped


def _interval(share: Floats, drawn: Floats, *, tried: int, confidence: float) -> tuple[Floats, Floats]:
    """Bootstrap interval, corrected for `tried` (Bonferroni).

    Percentiles that far out would need resamples in proportion to the values tried: the usual ones are widened on
    either side by the ratio of the normal quantiles instead.
    """
    beyond = (1.0 - confidence) / 2
    widen = float(ndtri(1.0 - beyond / tried) / ndtri(1.0 - beyond))
    ends = np.quantile(drawn, [beyond, 1.0 - beyond], axis=0)
    # A percentile interval need not hold the estimate itself where few resamples have any excess at all.
    low, high = np.minimum(ends[0], share), np.maximum(ends[1], share)
    return np.clip(share - (share - low) * widen, 0.0, 1.0), np.clip(share + (high - share) * widen, 0.0, 1.0)


def _surprise(rows: Floats, rows_before: Floats, now: int, before: int) -> Floats:
    """By how many standard errors the share of the rows rose."""
    pooled = (rows + rows_before) / (now + before)
    error = np.sqrt(np.maximum(pooled * (1 - pooled), 1e-12) * (1 / now + 1 / before))
    surprise: Floats = (rows / now - rows_before / before) / error
    return surprise
