"""Findings and verdicts in words, one sentence each, from the page's catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monitoring.attribution import Finding
from monitoring.ranges import range_in_words
from monitoring.verdict import Verdict
from monitoring.words import words


def percent(share: float | None) -> str:
    """A share as people read it.

    >>> percent(0.724), percent(None)
    ('72 %', '–')
    """
    return "–" if share is None else f"{min(max(share, 0.0), 1.0) * 100:.0f} %"


def kind_of(finding: Finding) -> str:
    """Which sentence fits: "carries" or "carries_all" (beyond chance), "grew" (more rows, no harder) or "chance"."""
    if finding.significant:
        # An interval that is a point says nothing more than the share.
        return "carries_all" if percent(finding.low) == percent(1.0) else "carries"
    return "grew" if finding.grew else "chance"


def finding_sentence(finding: Finding, language: str) -> str:
    """What one finding says.

    >>> from dataclasses import replace
    >>> m07 = Finding("machine", "M07", share=0.72, low=0.6, high=0.8, row_share=0.1, rows=50, reference_row_share=0.1,
    ...     grew=False, significant=True, usual_share=0.1, growth_share=0.0, evidence=9.0)
    >>> finding_sentence(m07, "en")
    'machine M07 carries 72 % of the additional hard cases (60 % to 80 %), with 10 % of the parts.'
    >>> finding_sentence(replace(m07, share=1.0, low=1.0, high=1.0), "en")
    'machine M07 carries all of the additional hard cases, with 10 % of the parts.'
    """
    return words("page", language)[f"where.{kind_of(finding)}"].format_map(_values(finding, language))


def verdict_sentence(verdict: Verdict, language: str) -> str:
    """Why a verdict is what it is.

    >>> verdict_sentence(Verdict("too_few_labels", "too_few_labels", numbers={"rows": 12, "missing": 38}), "en")
    '12 parts have been judged; 38 more are needed.'
    """
    values: dict[str, Any] = dict(verdict.numbers)
    if verdict.evidence:
        values |= _values(verdict.evidence[0], language)
    if verdict.share is not None:
        values["share"] = percent(verdict.share)
    return words("page", language)[f"verdict.{verdict.reason_key}"].format_map(values)


def _values(finding: Finding, language: str) -> Mapping[str, str]:
    names = words("alerts", language)
    return {
        "column": names.get(f"words.columns.{finding.column}", finding.column),
        "value": finding.value,
        "range": range_in_words(finding.column, finding.value, names) if finding.is_range else "",
        "share": percent(finding.share),
        "low": percent(finding.low),
        "high": percent(finding.high),
        "row_share": percent(finding.row_share),
        "before": percent(finding.reference_row_share),
    }
