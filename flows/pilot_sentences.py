"""The sentences of the pilot report: from numbers to what a person reads, in the words of a catalogue."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.pilot_cost import Cost
from flows.pilot_data import Material
from flows.pilot_effect import Effect
from flows.pilot_verdict import Verdict
from flows.pilot_words import Words, figure, percent

if TYPE_CHECKING:
    from softad.pilot_report import Candidate, PilotReport

_STANDS_OUT = 1.5


def verdict_sentences(
    words: Words, report: PilotReport, material: Material, verdict: Verdict, rounds: list[dict[str, float]]
) -> list[str]:
    """Why the verdict is what it is."""
    kind, others = verdict.kind, len(report.candidates) - 1
    name = verdict.best.name if kind == "other" else verdict.compared.name
    found = [words.say(f"verdict.{kind}", name=name, others=others, label=material.settings.data.label)]
    if kind == "other" and verdict.pipeline is not verdict.best:
        found.append(words.say("verdict.other-config", name=name))
    learnt = report.evidence.learnt[0]
    if math.isfinite(learnt.error):
        low, high = learnt.bounds(0.975)
        if learnt.value > 0.0:
            values = {"gain": percent(learnt.value), "low": percent(low), "high": percent(high)}
            found.append(words.say("verdict.not-learnt", **values))
        else:
            values = {"gain": percent(-learnt.value), "low": percent(-high), "high": percent(-low)}
            found.append(words.say("verdict.learnt", **values))
    if kind in ("keep", "other") and verdict.compared.refused:
        why = _why(words, verdict.compared)
        found.append(words.say("verdict.refused", name=verdict.compared.name, why=why))
    if kind in ("adopt", "setting", "keep", "other") and len(rounds) > 1:
        wins = sum(one["chosen"] < one["plain"] for one in rounds)
        found.append(words.say("verdict.better-in", name=verdict.compared.name, wins=wins, rounds=len(rounds)))
    return found


def _why(words: Words, one: Candidate) -> str:
    """Why a candidate is not taken, from the same limits as the choice."""
    from softad.judging import FIGURES
    from softad.recommendation import LIMITS

    for key, limit in LIMITS.items():
        found = one.differences.get(key)
        if found is None or FIGURES[key].title not in one.refused:
            continue
        larger = FIGURES[key].larger_is_better
        loss = -found.value if larger else found.value
        worst = -found.low if larger else found.high
        key_name = words.say(f"figure.{key}")
        beyond = loss > limit.loss
        return words.say(
            "why.loss" if beyond else "why.could",
            figure=key_name,
            amount=_amount(words, loss if beyond else worst, larger),
        )
    return words.say("why.gain")


def _amount(words: Words, value: float, points: bool) -> str:
    unit = {"en": " points", "ja": " ポイント"}[words.language]
    return f"{100 * value:.1f}{unit}" if points else percent(value)


def effect_sentence(words: Words, effect: Effect) -> str:
    """What changes for 1,000 parts of a kind."""
    numbers = {"plain": f"{effect.plain:,.0f}", "chosen": f"{effect.chosen:,.0f}"}
    if not math.isfinite(effect.low):
        return words.say(f"effect.{effect.parts}-short", **numbers)
    if not effect.measurable:
        within = max(math.ceil(max(abs(effect.low), abs(effect.high))), 1)
        return words.say(f"effect.{effect.parts}-same", within=f"{within:,}", **numbers)
    way = "fewer" if effect.change < 0 else "more"
    ends = sorted(abs(round(end)) for end in (effect.low, effect.high))
    return words.say(
        f"effect.{effect.parts}-{way}", n=f"{abs(effect.change):,.0f}", low=ends[0], high=ends[1], **numbers
    )


def split_sentences(words: Words, report: PilotReport, material: Material) -> list[str]:
    """How rows were parted, why, and what the budget made necessary."""
    data = material.settings.data
    found = [
        words.say(f"split.{material.why}", group=data.group, time=data.time),
        words.say("split.rounds", rounds=report.rounds),
    ]
    for note in report.notes:
        sample = re.match(r"A sample of (\d+) of the (\d+) rows", note)
        epochs = re.match(r"(\d+) epochs instead of", note)
        if sample:
            found.append(words.say("note.sample", rows=f"{int(sample[1]):,}", total=f"{int(sample[2]):,}"))
        elif epochs:
            found.append(words.say("note.epochs", epochs=epochs[1]))
        elif words.language == "en":
            found.append(note)
    return found


def cost_sentences(words: Words, paid: list[Cost], name: str, *, given: bool, classes: bool) -> list[str]:
    """What errors cost; several cases come as a table instead."""
    if not paid:
        return [words.say("cost.none" if classes else "cost.regression")]
    if not given:
        return [words.say("cost.ratio")]
    (one,) = paid
    found = [words.say("cost.given", miss=figure(one.miss), reject=figure(one.false_reject))]
    values: dict[str, object] = {"name": name, "chosen": figure(one.chosen), "plain": figure(one.plain)}
    if not math.isfinite(one.low):
        pass  # too few rounds for an interval, which the verdict says
    elif not one.low <= 0.0 <= one.high:
        ends = sorted((abs(one.low), abs(one.high)))
        way = "cheaper" if one.change < 0 else "dearer"
        found.append(
            words.say(
                f"cost.{way}", change=figure(abs(one.change)), low=figure(ends[0]), high=figure(ends[1]), **values
            )
        )
    else:
        found.append(words.say("cost.same", within=figure(max(abs(one.low), abs(one.high))), **values))
    found.append(
        words.say(
            "cost.threshold", threshold=f"{one.threshold:.3g}", half=figure(one.half), missed=f"{one.missed:.1f}",
            rejected=f"{one.rejected:.1f}",
        )
    )  # fmt: skip
    return found


def place_sentence(words: Words, places: list[dict[str, Any]], *, named: bool) -> str:
    """Whether one place stands out."""
    if not named:
        return words.say("hard.none")
    if not places or places[0]["times"] < _STANDS_OUT or places[0]["of_hard"] < 0.05:
        return words.say("hard.even")
    first = places[0]
    return words.say(
        "hard.most", column=first["column"], value=first["value"], times=f"{first['times']:.1f}",
        share=percent(first["hard_share"]), rows=f"{first['rows']:,}",
    )  # fmt: skip


def sensitivity_sentences(words: Words, report: PilotReport, name: str, rounds: list[dict[str, float]]) -> list[str]:
    """How far theta moves the tail, and how far chance does."""
    found = []
    for curve in report.sensitivity:
        if curve.figure == "tail" and curve.theta:
            values = [band.value for band in curve.bands]
            found.append(
                words.say(
                    "sensitivity.flat", low=figure(curve.theta[0]), high=figure(curve.theta[-1]),
                    best=figure(min(values)), at=figure(curve.theta[int(np.argmin(values))]),
                    worst=figure(max(values)), plain=figure(curve.baseline.value),
                )
            )  # fmt: skip
    if len(rounds) > 1:
        spread = {key: figure(float(np.std([one[key] for one in rounds], ddof=1))) for key in ("plain", "chosen")}
        found.append(words.say("sensitivity.seeds", name=name, plain_sd=spread["plain"], chosen_sd=spread["chosen"]))
    return found
