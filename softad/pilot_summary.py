"""From how each round judged each candidate to the report of a pilot study."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from softad.criteria import IFlood, SoftAD
from softad.figures import Interval
from softad.judging import BALANCED, FIGURES, MEAN, RECALL, RMSE, STABILITY, TAIL, Judged
from softad.paired import Array, Difference, Ints, correlations, paired, row_differences
from softad.pilot_evidence import Evidence
from softad.pilot_report import Candidate, PilotReport, Recommendation
from softad.pilot_rows import PilotRows
from softad.pilots import BASELINE, Setting, theta_of
from softad.recommendation import LIMITS, Choice, Contender, case_of, choose, non_dominated
from softad.sensitivity import SensitivityCurve, sensitivity_curve

RELATIVE = {"mean", "tail", "stability", "absolute_error", "rmse"}
"""Figures whose differences are shares of ERM's figure."""

Parts = Callable[[str, str], list[Array]]
"""From a candidate and a figure to the contributions in each round."""


def report_of(
    rows: PilotRows,
    settings: Sequence[Setting],
    judged: Sequence[Mapping[str, Judged]],
    thetas: Sequence[Mapping[str, float]],
    numbers: Sequence[Ints],
    *,
    training: Mapping[str, Any],
    notes: Sequence[str],
    seconds: float,
    budget: float,
    normal: str | None,
    constants: Sequence[Array],
    finished: bool = True,
    ask_recall: bool = True,
) -> PilotReport:
    """Put together the report from how each round judged each candidate.

    Parameters
    ----------
    judged: one mapping a round, candidate to how it was judged.
    thetas: one mapping a round, candidate to its level.
    numbers: the judged rows of each round.
    constants: in each round, the judged rows' losses under the training rows' class shares, or their mean.
    finished: whether ERM was ended by early stopping, in most rounds.
    ask_recall: whether recall decides; it says little where no class is one of normal rows.
    """
    whole = [setting for setting in settings if all(setting.name in one for one in judged)]
    keys = [key for key in FIGURES if all(key in found.after for one in judged for found in one.values())]
    clusters = list(numbers) if rows.groups is None else [rows.groups[part] for part in numbers]

    def parts(name: str, key: str) -> list[Array]:
        return [one[name].after[key] for one in judged]

    def by_round(name: str, key: str) -> list[float]:
        return [float(part.mean()) for part in parts(name, key)]

    others = [setting.name for setting in whole if setting.name != BASELINE]
    base = {key: parts(BASELINE, key) for key in keys}
    differences = {
        name: {key: paired(parts(name, key), base[key], clusters, relative=key in RELATIVE) for key in keys}
        for name in others
    }
    correlation = {
        key: correlations([row_differences(parts(name, key), base[key], clusters) for name in others])
        for key in LIMITS
        if key in keys and others
    }
    choice = choose(
        [
            Contender(name, {key: differences[name][key] for key in keys if ask_recall or key != RECALL.key})
            for name in others
        ],
        baseline=BASELINE, rounds=len(judged), correlation=correlation,
    )  # fmt: skip
    groups = {
        kind: _average(members, parts, base, clusters, keys)
        for kind, members in (
            ("bounded", [s.name for s in whole if _is_typical(s)]),
            ("reweighted", [s.name for s in whole if s.kind == "reweighted" and s.source == "grid"]),
        )
    }
    counts = np.bincount(rows.target, minlength=len(rows.classes)) if rows.classes else None
    case, case_reason = case_of(
        groups["bounded"], groups["reweighted"],
        smallest_class=None if counts is None else float(counts.min() * counts.size / counts.sum()),
        finished=finished,
    )  # fmt: skip
    weighed = [k for k in (MEAN.key, TAIL.key, STABILITY.key, RECALL.key if ask_recall else BALANCED.key) if k in keys]
    front = non_dominated(
        {
            s.name: [
                float(np.mean(by_round(s.name, key))) * (-1.0 if FIGURES[key].larger_is_better else 1.0)
                for key in weighed
            ]
            for s in whole
        }
    )
    candidates = []
    for setting in settings:
        name = setting.name
        good = setting in whole
        levels = [one[name] for one in thetas if name in one]
        candidates.append(
            Candidate(
                name=name,
                kind=setting.kind,
                source=setting.source,
                spec=setting.spec,
                figures={key: _interval(by_round(name, key)) for key in keys} if good else {},
                before=_intervals([one[name].before for one in judged]) if good else {},
                differences={key: _as_interval(found) for key, found in differences.get(name, {}).items()},
                temperature=float(np.mean([one[name].temperature for one in judged])) if good else math.nan,
                theta=float(np.mean(levels)) if levels else _fixed_theta(setting),
                non_dominated=name in front,
                refused="" if good and name == choice.name else choice.refused.get(name, ""),
                diverged=not good,
            )
        )
    return PilotReport(
        candidates=tuple(candidates),
        recommendation=_recommendation(choice, candidates, case, case_reason),
        pareto=front,
        sensitivity=_curves(whole, candidates, by_round, keys),
        task=rows.task,
        classes=rows.classes,
        normal=normal,
        rows=len(rows.frame),
        rounds=len(judged),
        training=training,
        notes=tuple(notes),
        seconds=seconds,
        budget=budget,
        evidence=Evidence(
            rows=tuple(rows.origin[part] for part in numbers),
            clusters=tuple(clusters),
            target=tuple(rows.target[part] for part in numbers),
            losses={s.name: tuple(parts(s.name, MEAN.key)) for s in whole},
            outputs={s.name: tuple(one[s.name].outputs for one in judged) for s in whole},
            learnt=(
                *(
                    paired(parts(name, MEAN.key), constants, clusters, relative=True)
                    for name in dict.fromkeys((BASELINE, choice.name))
                ),
                *([paired(_guessing(rows, numbers), base[BALANCED.key], clusters)] if BALANCED.key in base else []),
            ),
        ),
    )


def _guessing(rows: PilotRows, numbers: Sequence[Ints]) -> list[Array]:
    """The balanced accuracy of a constant answer in each round, as contributions of its rows."""
    return [np.full(part.size, 1.0 / np.unique(rows.target[part]).size) for part in numbers]


def _average(
    members: Sequence[str], parts: Parts, base: Mapping[str, list[Array]], clusters: Sequence[Ints], keys: Sequence[str]
) -> dict[str, Difference]:
    """The average of several candidates against ERM."""
    if not members:
        return {}
    found = {}
    for key in keys:
        own = [np.mean(together, axis=0) for together in zip(*(parts(name, key) for name in members), strict=True)]
        found[key] = paired(own, base[key], clusters, relative=key in RELATIVE)
    return found


def _is_typical(setting: Setting) -> bool:
    """Plain SoftAD with a level well below ERM's loss: the settings that tell which case the data are."""
    criterion = setting.spec.criterion
    return (
        setting.source == "grid"
        and isinstance(criterion, SoftAD)
        and criterion.transform is None
        and criterion.sigma == 1.0
    )


def _recommendation(choice: Choice, candidates: Sequence[Candidate], case: str, case_reason: str) -> Recommendation:
    (chosen,) = (one for one in candidates if one.name == choice.name)
    return Recommendation(chosen, choice.reason, case, case_reason)


def _curves(
    whole: Sequence[Setting],
    candidates: Sequence[Candidate],
    by_round: Callable[[str, str], list[float]],
    keys: Sequence[str],
) -> tuple[SensitivityCurve, ...]:
    levels = {level: s.name for s in whole if (level := theta_of(s.spec.criterion)) is not None}
    auto = [s.name for s in whole if s.name == "SoftAD theta=auto"]
    found_level = next((one.theta for one in candidates if auto and one.name == auto[0]), None)
    return tuple(
        sensitivity_curve(
            key,
            FIGURES[key].title,
            {level: by_round(name, key) for level, name in levels.items()},
            by_round(BASELINE, key),
            auto_theta=found_level,
            auto=by_round(auto[0], key) if auto else None,
        )
        for key in (MEAN.key, TAIL.key, STABILITY.key, BALANCED.key if BALANCED.key in keys else RMSE.key)
    )


def _interval(values: Sequence[float]) -> Interval:
    centre = float(np.mean(values))
    if len(values) < 2:
        return Interval(centre, -math.inf, math.inf)
    width = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return Interval(centre, centre - width, centre + width)


def _as_interval(found: Difference) -> Interval:
    low, high = found.bounds(0.975)
    return Interval(found.value, low, high)


def _intervals(found: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    return {key: _interval([one[key] for one in found]) for key in found[0]}


def _fixed_theta(setting: Setting) -> float | None:
    criterion = setting.spec.criterion
    return criterion.theta if isinstance(criterion, IFlood) else None
