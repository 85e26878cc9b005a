"""What a change of training does to parts, as numbers that sentences are made of: hard and normal, places, rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.pilot_data import Material

if TYPE_CHECKING:
    from softad.paired import Difference
    from softad.pilot_report import PilotReport

HARD_SHARE = 0.1
HARDEST = 20
SURE = 0.9
"""Models that are so sure of another class put the label in doubt."""
LEAST_IN_PLACE = 20
PLACES = 12


@dataclass(frozen=True)
class Effect:
    """Of 1,000 parts of a kind, how many more (or, below 0, fewer) are misjudged, with a 95 % interval.

    Attributes
    ----------
    parts: "hard" or "normal".
    plain, chosen: misjudged of 1,000 under plain training, and under the other.
    change, low, high: the difference.
    rows: different rows that this is of.
    """

    parts: str
    plain: float
    chosen: float
    change: float
    low: float
    high: float
    rows: int

    @property
    def measurable(self) -> bool:
        """Whether the interval leaves out zero."""
        return not self.low <= 0.0 <= self.high


def misjudged(report: PilotReport, name: str, tolerance: float | None) -> list[np.ndarray]:
    """Which rows a candidate gets wrong in each round, booleans of shape (rows of the round,)."""
    outputs, target = report.evidence.outputs[name], report.evidence.target
    if report.classes:
        return [said.argmax(axis=1) != truth for said, truth in zip(outputs, target, strict=True)]
    return [np.abs(said[:, 0]) > (tolerance or np.inf) for said in outputs]


def effects(report: PilotReport, name: str, *, tolerance: float | None) -> list[Effect]:
    """Of hard parts and of normal ones, what `name` changes against ERM.

    Hard are the tenth of the rows with the largest loss on average over all candidates.
    """
    evidence = report.evidence
    hard = evidence.hard_rows(HARD_SHARE)
    rest = np.setdiff1d(np.unique(np.concatenate(evidence.rows)), hard)
    own, plain = misjudged(report, name, tolerance), misjudged(report, "ERM", tolerance)
    found = []
    for parts, members in (("hard", hard), ("normal", rest)):
        difference = evidence.difference_on(members, own, plain)
        if difference is None:
            continue
        low, high = difference.bounds(0.975)
        inside = np.concatenate([p[np.isin(r, members)] for p, r in zip(plain, evidence.rows, strict=True)])
        base = float(inside.mean())
        found.append(
            Effect(parts, 1e3 * base, 1e3 * (base + difference.value), *_thousand(difference, low, high), len(members))
        )
    return found


def _thousand(difference: Difference, low: float, high: float) -> tuple[float, float, float]:
    return 1e3 * difference.value, 1e3 * low, 1e3 * high


def places(report: PilotReport, material: Material, name: str, *, tolerance: float | None) -> list[dict[str, Any]]:
    """Where hard parts sit: slice values with the share of hard parts among their rows, most first."""
    evidence = report.evidence
    hard = evidence.hard_rows(HARD_SHARE)
    judged, plain = evidence.row_means(misjudged(report, "ERM", tolerance))
    _, own = evidence.row_means(misjudged(report, name, tolerance))
    is_hard = np.isin(judged, hard)
    found = []
    for column, values in material.slices.items():
        here = values[judged]
        for value in np.unique(here.astype(str)):
            member = here == value
            rows = int(member.sum())
            if rows < LEAST_IN_PLACE or value == "":
                continue
            share = float(is_hard[member].mean())
            found.append({
                "column": column, "value": str(value), "rows": rows, "hard_share": share,
                "of_hard": float(is_hard[member].sum() / max(is_hard.sum(), 1)),
                "times": share / max(float(is_hard.mean()), 1e-9),
                "misjudged_plain": float(plain[member].mean()), "misjudged_chosen": float(own[member].mean()),
            })  # fmt: skip
    return sorted(found, key=lambda one: float(str(one["times"])), reverse=True)[:PLACES]


def hardest(report: PilotReport, material: Material, name: str) -> list[dict[str, Any]]:
    """The rows with the largest loss on average over all candidates: where they stand, what they are and seem.

    ``doubt`` is true where the models are sure of another class: the label is wrong, or no column shows its cause.
    """
    evidence = report.evidence
    every = [np.mean(one, axis=0) for one in zip(*evidence.losses.values(), strict=True)]
    judged, losses = evidence.row_means(every)
    together = [np.mean(one, axis=0) for one in zip(*evidence.outputs.values(), strict=True)]
    said = evidence.row_means(together)[1]
    own = evidence.row_means(evidence.losses[name])[1]
    found = []
    for place in np.argsort(-losses, kind="stable")[:HARDEST]:
        row = int(judged[place])
        entry: dict[str, Any] = {
            "row": int(material.rows[row]), "id": material.ids[row] if material.ids else None,
            "label": str(material.answers[row]), "loss": float(losses[place]), "loss_chosen": float(own[place]),
            "slices": {column: str(values[row]) for column, values in material.slices.items()},
        }  # fmt: skip
        if report.classes:
            best = int(said[place].argmax())
            entry |= {"said": report.classes[best], "sure": float(said[place][best])}
            entry["doubt"] = entry["said"] != entry["label"] and entry["sure"] >= SURE
        else:
            value = float(material.answers[row]) + float(said[place][0])
            entry |= {"said": f"{value:.4g}", "sure": None, "doubt": False}
        entry["index"] = row
        found.append(entry)
    return found


def by_round(report: PilotReport, name: str) -> list[dict[str, float]]:
    """The tail loss of plain training and of another in each round: each with another seed and another split."""
    found = []
    for plain, own in zip(report.evidence.losses["ERM"], report.evidence.losses[name], strict=True):
        found.append({"plain": _tail(plain), "chosen": _tail(own)})
    return found


def _tail(losses: np.ndarray) -> float:
    from softad.figures import cvar

    return float(cvar(losses, 0.9))
