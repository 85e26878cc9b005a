"""The report of a pilot study: candidates with their figures, what is recommended and why, and the picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from softad.figures import Interval
from softad.pilot_evidence import Evidence
from softad.pilots import Setting
from softad.recommendation import LIMITS
from softad.sensitivity import SensitivityCurve, page, sensitivity_figure
from softad.stacked import Pilot

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class Candidate:
    """One way to train, and what it came to.

    Attributes
    ----------
    name: says objective and parameters.
    kind: "baseline", "reweighted" or "bounded".
    source: "grid" or "search".
    spec: what `softad.stacked.train_stack` trains.
    figures: by key (`softad.judging.FIGURES`), after temperature scaling, the mean over the rounds with its 95 %
        interval.
    before: mean, tail and stability before temperature scaling, with their 95 % intervals.
    differences: to ERM, by key, with their 95 % intervals; shares of ERM's figure for losses and errors.
    temperature: mean over the rounds.
    theta: level in use, mean over the rounds; None where the objective has none.
    non_dominated: whether no other candidate is as good in mean, tail, stability and recall, and better in one.
    refused: why it is not recommended; "" where it could be.
    diverged: whether a loss was no finite number in some round; there are no figures then.
    """

    name: str
    kind: str
    source: str
    spec: Pilot
    figures: Mapping[str, Interval]
    before: Mapping[str, Interval]
    differences: Mapping[str, Interval]
    temperature: float
    theta: float | None
    non_dominated: bool
    refused: str
    diverged: bool

    def fit_kwargs(self) -> dict[str, Any]:
        """Arguments for `softad.training.fit` that train the same way (with regression, add ``base_loss``)."""
        return Setting(self.name, "baseline", self.spec).fit_kwargs()


@dataclass(frozen=True)
class Recommendation:
    """What to train with.

    Attributes
    ----------
    candidate: the one to take.
    reason: why, in words, with the numbers.
    case: what the data are like: "hard rows look like noise", "rare class", "hard rows can be learnt", "no
        measurable difference" or "trained too briefly to tell".
    case_reason: the numbers that say so.
    """

    candidate: Candidate
    reason: str
    case: str
    case_reason: str

    @property
    def name(self) -> str:
        """The candidate's name."""
        return self.candidate.name


@dataclass(frozen=True)
class PilotReport:
    """What `softad.tuning.pilot` found.

    Attributes
    ----------
    candidates: all that were tried, ERM first.
    recommendation: the one to take, with the reason.
    pareto: names of the candidates that no other beats in mean, tail, stability and recall (balanced accuracy where no
        class is the normal one) together.
    sensitivity: figures against theta.
    task: "classification" or "regression".
    classes, normal: labels, and the one of normal rows; empty and None for regression.
    rows, rounds: how many rows were used, and how many rounds judged the candidates.
    training: what all candidates share (epochs, batch size, rates, ...).
    notes: what the budget made necessary.
    seconds, budget: wall time used and allowed.
    evidence: what each candidate said of each judged row.
    """

    candidates: tuple[Candidate, ...]
    recommendation: Recommendation
    pareto: tuple[str, ...]
    sensitivity: tuple[SensitivityCurve, ...]
    task: str
    classes: tuple[str, ...]
    normal: str | None
    rows: int
    rounds: int
    training: Mapping[str, Any]
    notes: tuple[str, ...]
    seconds: float
    budget: float
    evidence: Evidence

    def candidate(self, name: str) -> Candidate:
        """A candidate by name.

        Raises
        ------
        ValueError: there is none of that name.
        """
        for one in self.candidates:
            if one.name == name:
                return one
        raise ValueError(f"name: {name!r}; allowed: {', '.join(one.name for one in self.candidates)}")

    def frame(self) -> pd.DataFrame:
        """One row a candidate: figures, loss figures before temperature scaling, and the verdict."""
        rows = []
        for one in self.candidates:
            row: dict[str, Any] = {"candidate": one.name}
            row |= {key: found.value for key, found in one.figures.items()}
            row |= {f"{key}_before": found.value for key, found in one.before.items()}
            row |= {f"{key}_against_erm": one.differences[key].value for key in LIMITS if key in one.differences}
            row |= {
                "temperature": one.temperature,
                "theta": one.theta,
                "source": one.source,
                "pareto": one.non_dominated,
                "verdict": "diverged" if one.diverged else self._verdict(one),
            }
            rows.append(row)
        return pd.DataFrame(rows).set_index("candidate")

    def figure(self) -> Figure:
        """The sensitivity picture, as a plotly figure."""
        return sensitivity_figure(self.sensitivity)

    def write_html(self, path: str | Path) -> Path:
        """The report as one page that needs no network; returns where it is."""
        found = self.recommendation
        paragraphs = [
            f"Recommended: {found.reason}",
            f"The case: {found.case}; {found.case_reason}.",
            f"{len(self.candidates)} candidates, {self.rounds} rounds, {self.rows} rows, {self.seconds:.0f} seconds. "
            "Figures are of rows that were neither trained on nor used for early stopping or temperature scaling, "
            "after temperature scaling. Bands: one standard deviation between rounds (seeds and splits).",
            *self.notes,
        ]
        target = Path(path)
        target.write_text(page("Pilot study", paragraphs, self.figure(), self.frame()), encoding="utf-8")
        return target

    def to_dict(self) -> dict[str, Any]:
        """Everything but the weights, as what JSON can hold."""
        document = {
            "task": self.task,
            "classes": list(self.classes),
            "normal": self.normal,
            "rows": self.rows,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "budget": self.budget,
            "notes": list(self.notes),
            "training": dict(self.training),
            "pareto": list(self.pareto),
            "learnt": self.evidence.learnt_document(),
            "recommendation": {
                "name": self.recommendation.name,
                "reason": self.recommendation.reason,
                "case": self.recommendation.case,
                "case_reason": self.recommendation.case_reason,
            },
            "candidates": [
                {
                    "name": one.name,
                    "kind": one.kind,
                    "source": one.source,
                    "criterion": repr(one.spec.criterion),
                    "label_smoothing": one.spec.label_smoothing,
                    "focal": one.spec.focal,
                    "class_weights": one.spec.class_weights,
                    "figures": {key: asdict(found) for key, found in one.figures.items()},
                    "before": {key: asdict(found) for key, found in one.before.items()},
                    "differences": {key: asdict(found) for key, found in one.differences.items()},
                    "temperature": one.temperature,
                    "theta": one.theta,
                    "pareto": one.non_dominated,
                    "refused": one.refused,
                    "diverged": one.diverged,
                }
                for one in self.candidates
            ],
            "sensitivity": [asdict(curve) for curve in self.sensitivity],
        }
        cleaned: dict[str, Any] = json.loads(json.dumps(_finite(document)))
        return cleaned

    def _verdict(self, one: Candidate) -> str:
        if one.name == self.recommendation.name:
            return "recommended"
        return one.refused or "good too"


def _finite(value: Any) -> Any:
    """The same without numbers that JSON has no word for, which become None."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
