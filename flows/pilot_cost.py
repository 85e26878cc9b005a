"""What errors cost: a missed defect against a rejected good part, and the threshold that costs least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from softad.pilot_report import PilotReport

RATIOS = (1.0, 5.0, 20.0, 100.0)
"""A miss in units of a false reject, where nobody has said what they cost."""


@dataclass(frozen=True)
class Cost:
    """What 1,000 parts cost, with the threshold on the probability of a defect that costs least.

    Attributes
    ----------
    miss, false_reject: of one.
    threshold: of the chosen model: parts with a larger probability of a defect are rejected.
    plain, chosen: of 1,000 parts, each round judged at the threshold that the other rounds' rows ask for.
    half: of 1,000 parts under the chosen model at a threshold of one half.
    change, low, high: chosen less plain, with a 95 % interval.
    missed, rejected: of 1,000 parts, under the chosen model.
    curve: thresholds, and the chosen model's cost of 1,000 parts at each.
    """

    miss: float
    false_reject: float
    threshold: float
    plain: float
    chosen: float
    half: float
    change: float
    low: float
    high: float
    missed: float
    rejected: float
    curve: tuple[tuple[float, ...], tuple[float, ...]]


def costs(report: PilotReport, name: str, normal: str | None, pairs: list[tuple[float, float]]) -> list[Cost]:
    """The costs of each pair (missed defect, false reject); empty where no class is the good one."""
    if normal is None or normal not in report.classes:
        return []
    column = report.classes.index(normal)
    scores = {one: [1.0 - said[:, column] for said in report.evidence.outputs[one]] for one in ("ERM", name)}
    defects = [truth != column for truth in report.evidence.target]
    return [_cost(report, scores, defects, name, miss, reject) for miss, reject in pairs]


def best_threshold(scores: np.ndarray, defects: np.ndarray, miss: float, reject: float) -> float:
    """The threshold that costs least on these rows, half way between two scores; a row above it is rejected.

    Parameters
    ----------
    scores: probability of a defect, shape (n,).
    defects: booleans, shape (n,).

    >>> best_threshold(np.array([0.1, 0.2, 0.6, 0.8]), np.array([False, False, True, True]), 1.0, 1.0)
    0.4
    """
    order = np.argsort(scores, kind="stable")
    ordered, bad = scores[order], defects[order]
    # With the k lowest accepted, the defects among them are missed and the good ones above are rejected.
    missed = np.concatenate([[0], np.cumsum(bad)])
    rejected = np.concatenate([[0], np.cumsum(~bad)])
    total = miss * missed + reject * (rejected[-1] - rejected)
    allowed = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])
    k = int(np.where(allowed, total, np.inf).argmin())
    edges = np.concatenate([[0.0], ordered, [1.0]])
    return float((edges[k] + edges[k + 1]) / 2.0)


def _cost(
    report: PilotReport,
    scores: dict[str, list[np.ndarray]],
    defects: list[np.ndarray],
    name: str,
    miss: float,
    reject: float,
) -> Cost:
    from softad.paired import paired

    def paid(score: np.ndarray, bad: np.ndarray, threshold: float) -> np.ndarray:
        return np.where(bad, miss * (score <= threshold), reject * (score > threshold)).astype(np.float64)

    by_name: dict[str, list[np.ndarray]] = {}
    counts = [0, 0]
    for one, values in scores.items():
        by_name[one] = []
        for number, (score, bad) in enumerate(zip(values, defects, strict=True)):
            others = [n for n in range(len(values)) if n != number] or [number]
            limit = best_threshold(
                np.concatenate([values[n] for n in others]), np.concatenate([defects[n] for n in others]), miss, reject
            )
            by_name[one].append(paid(score, bad, limit))
            if one == name:
                counts[0] += int((bad & (score <= limit)).sum())
                counts[1] += int((~bad & (score > limit)).sum())
    every, bad = np.concatenate(scores[name]), np.concatenate(defects)
    difference = paired(by_name[name], by_name["ERM"], list(report.evidence.clusters))
    low, high = difference.bounds(0.975)
    grid = np.concatenate([np.geomspace(1e-3, 0.1, 30), np.linspace(0.12, 0.98, 44)])
    return Cost(
        miss=miss,
        false_reject=reject,
        threshold=best_threshold(every, bad, miss, reject),
        plain=1e3 * float(np.mean([one.mean() for one in by_name["ERM"]])),
        chosen=1e3 * float(np.mean([one.mean() for one in by_name[name]])),
        half=1e3 * float(paid(every, bad, 0.5).mean()),
        change=1e3 * difference.value,
        low=1e3 * low,
        high=1e3 * high,
        missed=1e3 * counts[0] / every.size,
        rejected=1e3 * counts[1] / every.size,
        curve=(tuple(grid.tolist()), tuple(1e3 * float(paid(every, bad, t).mean()) for t in grid)),
    )
