"""The whole pilot report as one document of plain values: for JSON, for the page, and for the printed summary."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.pilot_cost import RATIOS, Cost, costs
from flows.pilot_data import Material
from flows.pilot_effect import Effect, by_round, effects, hardest, places
from flows.pilot_quality import find_quality
from flows.pilot_sentences import (
    cost_sentences,
    effect_sentence,
    place_sentence,
    sensitivity_sentences,
    split_sentences,
    verdict_sentences,
)
from flows.pilot_verdict import Verdict
from flows.pilot_words import Words

if TYPE_CHECKING:
    from softad.figures import Interval
    from softad.pilot_report import PilotReport

THREE = ("mean", "tail", "stability")


def build_document(
    report: PilotReport,
    material: Material,
    verdict: Verdict,
    words: Words,
    *,
    cost_miss: float | None,
    cost_false_reject: float | None,
    config: str,
) -> dict[str, Any]:
    """Put together everything that the report says.

    Parameters
    ----------
    cost_miss, cost_false_reject: of one; where both are None the costs are shown for several ratios.
    config: the text of the config that puts the verdict to work.

    Returns
    -------
    The document of `PilotReport.to_dict` with more: verdict, quality, split, effects, costs, places, hardest rows,
    figures by round, and the sentences of each in the language of `words`.
    """
    name, settings = verdict.compared.name, material.settings
    tolerance = settings.task.tolerance
    moved = effects(report, name, tolerance=tolerance)
    given = cost_miss is not None or cost_false_reject is not None
    pairs = [(cost_miss or 1.0, cost_false_reject or 1.0)] if given else [(ratio, 1.0) for ratio in RATIOS]
    paid = costs(report, name, settings.task.normal, pairs)
    where = places(report, material, name, tolerance=tolerance)
    rounds = by_round(report, name)
    quality = find_quality(material)
    document = report.to_dict()
    document |= {
        "language": words.language,
        "data": material.proposal.data.name,
        "model": settings.name,
        "label": settings.data.label,
        "verdict": {
            "kind": verdict.kind, "best": verdict.best.name, "compared": verdict.compared.name,
            "pipeline": verdict.pipeline.name, "title": words.say(
                f"verdict.{verdict.kind}-title", name=verdict.best.name if verdict.kind == "other" else name
            ), "text": verdict_sentences(words, report, material, verdict, rounds),
        },
        "figures": _figures(report, verdict, settings.task.normal),
        "quality": [
            {"level": one.level, "key": one.key, "values": one.values,
             "text": words.say(f"quality.{one.key}", **{k: _number(v) for k, v in one.values.items()})}
            for one in quality
        ],
        "split": {"by": material.split, "why": material.why, "text": split_sentences(words, report, material)},
        "effects": [
            asdict(one) | {"measurable": one.measurable, "text": effect_sentence(words, one)} for one in moved
        ],
        "costs": {
            "given": given, "normal": settings.task.normal,
            "text": cost_sentences(words, paid, name, given=given, classes=bool(report.classes)),
            "cases": [asdict(one) for one in paid],
        },
        "by_round": rounds,
        "sensitivity_text": sensitivity_sentences(words, report, name, rounds),
        "places": where,
        "places_text": place_sentence(words, where, named=bool(material.slices)),
        "hardest": hardest(report, material, name),
        "config": config,
    }  # fmt: skip
    cleaned: dict[str, Any] = _plain(document)
    return cleaned


def _figures(report: PilotReport, verdict: Verdict, normal: str | None) -> list[dict[str, Any]]:
    """The figures of plain training and of the compared one with their intervals, and the paired differences."""
    plain, own = report.candidates[0], verdict.compared

    def ends(interval: Interval) -> dict[str, float]:
        # No figure is below 0, though an interval of few rounds may be; of a single round there is none.
        low = max(interval.low, 0.0) if math.isfinite(interval.low) else interval.low
        return {"value": interval.value, "low": low, "high": interval.high}

    found = []
    for key in plain.figures:
        if key == "recall" and normal is None:
            continue  # without a class of good parts there is no false reject
        entry: dict[str, Any] = {"key": key, "plain": ends(plain.figures[key]), "chosen": ends(own.figures[key])}
        if key in THREE:
            entry |= {"plain_before": ends(plain.before[key]), "chosen_before": ends(own.before[key])}
        if key in own.differences:
            entry["difference"] = asdict(own.differences[key])
        found.append(entry)
    return found


def _number(value: Any) -> Any:
    return f"{value:,}" if isinstance(value, int) else value


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


__all__ = ["Cost", "Effect", "build_document"]
