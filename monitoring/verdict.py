"""From a scan's result and an attribution to a verdict: healthy, inspect, retrain or too few labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from monitoring.attribution import Attribution, Finding
from monitoring.slice_statistics import MISSING, RARE

Kind = Literal["healthy", "inspect", "retrain", "too_few_labels"]

NOT_JUDGED = ("too_few_labels", "too_few_lots", "labels_not_representative")
"""States of a scan in which nothing can be said; the verdict's reason is the state's name."""

LEAST_LIFT = 3.0
"""One slice carries the excess only where a row of it carries at least this many times the excess of a row elsewhere.
With many rows, a small unevenness of a change that hit everything is beyond chance too; it is no cause."""


class _Effect(Protocol):
    @property
    def relevant(self) -> bool: ...


class Judged(Protocol):
    """What `decide` reads of a `monitoring.scan.ScanResult`."""

    @property
    def alarm(self) -> bool:
        """Whether the loss concentration shifted."""

    @property
    def state(self) -> str:
        """State of the scan: ok, alarm, spent, or one of `NOT_JUDGED`."""

    @property
    def rows(self) -> int:
        """Labelled rows in the window."""

    @property
    def missing(self) -> int:
        """Rows that the window lacks to be judged."""

    @property
    def nearness(self) -> float:
        """Statistic over threshold; 0 where there is no threshold."""

    @property
    def effect(self) -> _Effect | None:
        """How large the change is."""


@dataclass(frozen=True)
class Verdict:
    """What to do about a window, and why.

    Attributes
    ----------
    kind: healthy | inspect | retrain | too_few_labels.
    column, value, share: the slice that is named, and its share of the excess tail loss; None where none is.
    low, high: interval of `share`.
    reason_key: key of the sentence that says why: no_alarm, held_back, one_slice, new_slice, slice_grew, one_range,
        range_grew, spread, no_slices, or one of `NOT_JUDGED`.
    numbers: what that sentence fills in.
    evidence: the findings that decided, in the order of their weight.
    """

    kind: Kind
    reason_key: str
    column: str | None = None
    value: str | None = None
    share: float | None = None
    low: float | None = None
    high: float | None = None
    numbers: Mapping[str, float | int] = field(default_factory=dict)
    evidence: tuple[Finding, ...] = ()


def decide(result: Judged, attribution: Attribution | None, *, inspect_share: float = 0.5) -> Verdict:
    """The verdict on one window.

    A slice is to be inspected where it alone carries the excess: its findings are significant, its share is at least
    `inspect_share`, the whole interval of that lies above its share of the rows, and a row of it carries at least
    `LEAST_LIFT` times the excess of a row elsewhere. A slice that only has more rows than before, or that the
    reference never held, is new business: the model is to learn it. So is a range of a numeric feature that carries the
    excess: the range is evidence, but nobody can look at it, and a model that never saw hot parts would not know them.
    After an alarm has ended the scan's life (state
    `spent`), a window is judged in the same way as long as its effect is relevant.

    Parameters
    ----------
    result: of `ConcentrationScan.update`.
    attribution: of the window's rows; None where there are no slice columns, or no alarm.
    inspect_share: in (0, 1].

    Raises
    ------
    ValueError: `inspect_share` out of range.

    >>> from types import SimpleNamespace
    >>> calm = SimpleNamespace(alarm=False, state="ok", rows=500, missing=0, nearness=0.4, effect=None)
    >>> decide(calm, None).kind
    'healthy'
    >>> loud = SimpleNamespace(alarm=True, state="alarm", rows=500, missing=0, nearness=2.0, effect=None)
    >>> m07 = Finding("machine", "M07", share=0.72, low=0.6, high=0.8, row_share=0.1, rows=50, reference_row_share=0.1,
    ...     grew=False, significant=True, usual_share=0.1, growth_share=0.0, evidence=9.0)
    >>> verdict = decide(loud, Attribution((m07,), 31.0, tried=12, threshold=1.5, rows=500, reference_rows=2000))
    >>> verdict.kind, verdict.column, verdict.value, verdict.reason_key
    ('inspect', 'machine', 'M07', 'one_slice')
    """
    if not 0.0 < inspect_share <= 1.0:
        raise ValueError(f"inspect_share is {inspect_share}; it must lie above 0 and be at most 1")
    if result.state in NOT_JUDGED:
        return Verdict("too_few_labels", result.state, numbers={"rows": result.rows, "missing": result.missing})
    persists = result.state == "spent" and attribution is not None and result.effect is not None
    if not (result.alarm or (persists and result.effect is not None and result.effect.relevant)):
        held_back = result.state == "ok" and result.nearness > 1.0
        numbers = {"rows": result.rows, "nearness": round(result.nearness, 1)}
        return Verdict("healthy", "held_back" if held_back else "no_alarm", numbers=numbers)
    if attribution is None:
        return Verdict("retrain", "no_slices", numbers={"rows": result.rows})
    carriers = tuple(item for item in attribution.findings if _carries(item, inspect_share))
    named = tuple(item for item in carriers if not item.is_range)
    if named:
        first = named[0]
        if first.reference_row_share == 0.0 and first.value != MISSING:
            return _named("retrain", "new_slice", first, carriers, attribution)
        return _named("inspect", "one_slice", first, carriers, attribution)
    grown = sorted(
        (item for item in attribution.findings if _merely_grew(item, inspect_share)),
        key=lambda item: -item.growth_share,
    )
    slices_grown = [item for item in grown if not item.is_range]
    if slices_grown:
        return _named("retrain", "slice_grew", slices_grown[0], tuple(grown), attribution)
    for reason, ranges in (("one_range", carriers), ("range_grew", tuple(grown))):
        if ranges:
            return replace(_named("retrain", reason, ranges[0], ranges, attribution), column=None, value=None)
    numbers = {"rows": result.rows, "total_excess": attribution.total_excess, "tried": attribution.tried}
    return Verdict("retrain", "spread", numbers=numbers, evidence=attribution.findings[:3])


def lift(finding: Finding) -> float:
    """How many times the excess of a row elsewhere a row of the slice carries; infinite where it carries all of it.

    >>> finding = Finding("machine", "M07", share=0.5, low=0.4, high=0.6, row_share=0.2, rows=40,
    ...     reference_row_share=0.2, grew=False, significant=True, usual_share=0.2, growth_share=0.0, evidence=9.0)
    >>> lift(finding)
    4.0
    """
    elsewhere = (1.0 - finding.share) * finding.row_share
    return finding.share * (1.0 - finding.row_share) / elsewhere if elsewhere > 0.0 else float("inf")


def _carries(finding: Finding, inspect_share: float) -> bool:
    return (
        finding.significant
        and finding.value != RARE  # a pool of many values is not one slice
        and finding.share >= inspect_share
        and finding.low > finding.row_share
        and lift(finding) >= LEAST_LIFT
    )


def _merely_grew(finding: Finding, inspect_share: float) -> bool:
    return finding.grew and not finding.significant and finding.growth_share >= inspect_share


def _named(
    kind: Kind, reason_key: str, finding: Finding, evidence: tuple[Finding, ...], attribution: Attribution
) -> Verdict:
    grew = reason_key in {"slice_grew", "range_grew"}
    share = finding.growth_share if grew else finding.share
    return Verdict(
        kind,
        reason_key,
        column=finding.column,
        value=finding.value,
        share=min(share, 1.0),
        low=None if grew else finding.low,
        high=None if grew else finding.high,
        numbers={
            "share": min(share, 1.0),
            "low": finding.low,
            "high": finding.high,
            "row_share": finding.row_share,
            "reference_row_share": finding.reference_row_share,
            "rows": finding.rows,
            "total_excess": attribution.total_excess,
            "tried": attribution.tried,
        },
        evidence=evidence,
    )
