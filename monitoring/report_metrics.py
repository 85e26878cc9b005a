"""Our figures as metrics of Evidently's own API: the scan, concentration, tail, figures by slice.

In a report of one's own they read the column `loss` of the data set, and take tests as Evidently's metrics do:

>>> import numpy as np, pandas as pd
>>> from evidently import DataDefinition, Dataset, Report
>>> from evidently.tests import lte
>>> frame = pd.DataFrame({"loss": np.arange(100.0), "machine": ["M1", "M2"] * 50})
>>> rows = Dataset.from_pandas(frame, DataDefinition(numerical_columns=["loss"], categorical_columns=["machine"]))
>>> tail = TailLoss(level=0.9, tests=[lte(90.0)])
>>> report = Report([tail, SliceFigure(slice="machine", measure="mean")]).run(rows, None).dict()
>>> report["metrics"][0]["value"], report["tests"][0]["status"].value, report["metrics"][1]["value"]
(94.5, 'FAIL', {'M1': 49.0, 'M2': 50.0})
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from evidently import Dataset
from evidently._pydantic_compat import PrivateAttr
from evidently.core.metric_types import (
    ByLabelCalculation,
    ByLabelMetric,
    ByLabelValue,
    SingleValue,
    SingleValueCalculation,
    SingleValueMetric,
)
from evidently.core.report import Context

from monitoring.attribution import Attribution, attribute
from monitoring.report_widgets import concentration_plot, counters, reading_plot, table
from monitoring.scan import ConcentrationScan
from monitoring.scan_result import ScanResult
from monitoring.sentences import finding_sentence, percent, verdict_sentence
from monitoring.slice_statistics import Floats
from monitoring.verdict import Verdict, decide
from monitoring.words import words
from softad.figures import cvar, loss_concentration

LARGEST_SLICES = 20
"""Values of a slice column beyond the most frequent ones are taken together in a report."""

OTHERS = "(others)"
_MEASURES = {"mean": "mean loss", "tail": "tail of the losses", "rows": "rows", "loss_share": "share of the loss"}


@dataclass
class Judgement:
    """The one update of the scan and what follows from it, kept so that a report built again does not judge twice.

    Parameters
    ----------
    scan: updated once, by `of`.
    window: its name.
    threshold: in place of the scan's, for a drill; None: the scan's own.
    rows, reference: labelled rows of the window and of the reference, with `_id`, `loss`, `_lot` where the scan ranks
        lots, and the columns named next.
    even: the rows in which a cause is sought: all, or those that stay where some were likelier to be labelled.
    chances: (n,) probabilities of the rows of having been labelled; None where all were.
    age: of the labels, where the scan has several.
    slices, ranges: columns in which a cause is sought after an alarm.
    inspect_share: of `monitoring.verdict.decide`.
    language: of the sentences.
    earlier: (window, statistic, threshold) of the life's windows before, for the picture.
    """

    scan: ConcentrationScan
    window: str
    threshold: float | None
    rows: pd.DataFrame
    reference: pd.DataFrame
    even: pd.DataFrame
    chances: Floats | None = None
    age: float | None = None
    slices: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    inspect_share: float = 0.5
    seed: int = 0
    language: str = "en"
    earlier: tuple[tuple[str, float | None, float | None], ...] = ()
    result: ScanResult | None = None
    attribution: Attribution | None = None
    verdict: Verdict | None = None

    def judge(self) -> tuple[ScanResult, Verdict]:
        """Update the scan, seek the cause where there is something to explain, and decide; once."""
        if self.result is None or self.verdict is None:
            self.result = self.scan.update(
                self.rows["loss"].to_numpy(dtype=np.float64),
                window=self.window,
                ids=self.rows["_id"].to_numpy(),
                lots=self.rows["_lot"].to_numpy() if self.scan.by_lots else None,
                probabilities=self.chances,
                age=self.age,
                threshold=self.threshold,
            )
            slices = [name for name in self.slices if name in self.rows and name in self.reference]
            ranges = [name for name in self.ranges if name in self.rows and name in self.reference]
            if (self.result.alarm or self.result.state == "spent") and (slices or ranges) and len(self.even):
                self.attribution = attribute(self.even, self.reference, slices=slices, ranges=ranges, seed=self.seed)
            self.verdict = decide(self.result, self.attribution, inspect_share=self.inspect_share)
        return self.result, self.verdict


class ConcentrationShift(SingleValueMetric):  # type: ignore[misc]
    """The scan's statistic for one window, as it is compared with the threshold.

    The scan's update runs in this metric's calculation. The smallest relevant effect is part of the value: where it is
    not reached, the value does not exceed the threshold. The verdict is decided from the same result, and shown here.

    Parameters
    ----------
    window: its name.
    alarm_budget: of the scan.
    """

    window: str
    alarm_budget: float
    _judgement: Judgement = PrivateAttr()


class ConcentrationShiftCalculation(SingleValueCalculation[ConcentrationShift]):  # type: ignore[misc]
    """Judges the rows of its `Judgement`."""

    def calculate(self, _context: Context, *_data: Dataset | None) -> SingleValue:
        """Update the scan. Raises ValueError where the scan does."""
        judgement = self.metric._judgement
        result, verdict = judgement.judge()
        value = self.result(result.tested)
        value.widget = [self._verdict(verdict), self._numbers(result)]
        points = [*judgement.earlier, (self.metric.window, result.statistic, result.threshold)]
        if result.statistic is not None:
            value.widget.append(reading_plot(*zip(*points, strict=True)))
        if judgement.attribution is not None:
            value.widget.append(self._causes(judgement.attribution))
        return value

    def _verdict(self, verdict: Verdict) -> object:
        language = self.metric._judgement.language
        said = words("page", language)
        title = said["verdict.title"].format(kind=said[f"status.{verdict.kind}"])
        return counters(self.metric.window, {verdict_sentence(verdict, language): title})

    def _numbers(self, result: ScanResult) -> object:
        def shown(number: float | None) -> str:
            return "-" if number is None else f"{number:.3f}"

        effect = result.effect
        cells = {
            "state": result.state,
            "statistic": shown(result.statistic),
            "threshold": shown(result.threshold),
            "budget spent": f"{result.budget_spent:.4f} of {self.metric.alarm_budget:g}",
            "rows with a label": str(result.rows),
            "mean, times the reference": shown(None if effect is None else effect.mean),
            "tail, times the reference": shown(None if effect is None else effect.tail),
        }
        return counters(self.display_name(), cells)

    def _causes(self, attribution: Attribution) -> object:
        language = self.metric._judgement.language
        said = words("page", language)
        rows = [
            (
                f"{one.column}: {one.value}",
                percent(one.share),
                f"{percent(one.low)} - {percent(one.high)}",
                percent(one.row_share),
                finding_sentence(one, language),
            )
            for place, one in enumerate(attribution.findings[:10])
            if place < 6 or one.significant or one.grew
        ]
        names = [said[f"where.{name}"] for name in ("place", "share", "range", "parts", "sentence")]
        return table(said["where.title"], names, rows)

    def display_name(self) -> str:
        """As it stands in the report."""
        return f"Shift of the loss concentration in {self.metric.window}"


class LossConcentrationMetric(SingleValueMetric):  # type: ignore[misc]
    """How far the loss sits in few rows.

    Parameters
    ----------
    measure: mean penalty rho((loss - theta) / sigma); share of the worst tenth of rows; Gini coefficient.
    theta, sigma: mean and standard deviation of the reference's losses.
    loss: column of losses.
    """

    measure: Literal["penalty", "top_share", "gini"]
    theta: float
    sigma: float
    loss: str = "loss"


class LossConcentrationCalculation(SingleValueCalculation[LossConcentrationMetric]):  # type: ignore[misc]
    """Of the losses of window and reference; the first measure comes with the picture."""

    def calculate(
        self, context: Context, current_data: Dataset, reference_data: Dataset | None
    ) -> tuple[SingleValue, SingleValue | None]:
        """The measure in the window and in the reference."""
        now, then = (_losses(frame, self.metric.loss) for frame in _frames(context, current_data, reference_data))
        value = self.result(self._measure(now))
        if self.metric.measure == "top_share" and now is not None:
            value.widget = [
                counters(self.display_name(), _two(self._measure(now), None if then is None else self._measure(then))),
                concentration_plot(now, then),
            ]
        return value, None if then is None else self.result(self._measure(then))

    def _measure(self, losses: Floats | None) -> float:
        if losses is None or not losses.size:
            return math.nan
        found = loss_concentration(losses, theta=self.metric.theta, sigma=self.metric.sigma, resamples=1)
        return float(getattr(found, self.metric.measure).value)

    def display_name(self) -> str:
        """As it stands in the report."""
        return {
            "penalty": "Loss concentration: mean penalty",
            "top_share": "Loss concentration: share of the worst tenth",
            "gini": "Loss concentration: Gini coefficient",
        }[self.metric.measure]


class TailLoss(SingleValueMetric):  # type: ignore[misc]
    """Mean of the worst rows' losses (CVaR).

    Parameters
    ----------
    level: 0.9 for the worst tenth.
    loss: column of losses.
    """

    level: float = 0.9
    loss: str = "loss"


class TailLossCalculation(SingleValueCalculation[TailLoss]):  # type: ignore[misc]
    """Of the losses of window and reference."""

    def calculate(
        self, context: Context, current_data: Dataset, reference_data: Dataset | None
    ) -> tuple[SingleValue, SingleValue | None]:
        """The tail in the window and in the reference."""
        now, then = (_losses(frame, self.metric.loss) for frame in _frames(context, current_data, reference_data))
        return self.result(self._tail(now)), None if then is None else self.result(self._tail(then))

    def _tail(self, losses: Floats | None) -> float:
        return cvar(losses, self.metric.level) if losses is not None and losses.size else math.nan

    def display_name(self) -> str:
        """As it stands in the report."""
        return f"Tail of the losses (CVaR {self.metric.level:g})"


class SliceFigure(ByLabelMetric):  # type: ignore[misc]
    """One figure of the losses for each value of a slice column; tests are given by value.

    Parameters
    ----------
    slice: the column.
    measure: mean | tail | rows | loss_share (share of the loss of all rows).
    level: of the tail.
    loss: column of losses.
    """

    slice: str
    measure: Literal["mean", "tail", "rows", "loss_share"] = "tail"
    level: float = 0.9
    loss: str = "loss"


class SliceFigureCalculation(ByLabelCalculation[SliceFigure]):  # type: ignore[misc]
    """Of the losses of window and reference; values beyond the `LARGEST_SLICES` most frequent ones are together."""

    def calculate(
        self, context: Context, current_data: Dataset, reference_data: Dataset | None
    ) -> tuple[ByLabelValue, ByLabelValue | None]:
        """The figure of each value, the most frequent first."""
        now, then = _frames(context, current_data, reference_data)
        names = _frequent(now, self.metric.slice)
        here = self._figures(now, names)
        before = None if then is None or self.metric.slice not in then else self._figures(then, names)
        value = self.result({name: figure for name, (figure, _) in here.items()})
        title = self.display_name()
        rows = [
            (name, f"{count:,}", f"{figure:.3f}", "-" if before is None else f"{before[name][0]:.3f}")
            for name, (figure, count) in here.items()
        ]
        value.widget = [table(title, [self.metric.slice, "rows", "this window", "reference"], rows)]
        if before is None:
            return value, None
        known = self.result({name: figure for name, (figure, _) in before.items()})
        known.widget = []
        return value, known

    def _figures(self, frame: pd.DataFrame | None, names: list[str]) -> dict[str, tuple[float, int]]:
        if frame is None:
            return {}
        labels, losses = _labels(frame[self.metric.slice], names), frame[self.metric.loss].to_numpy(dtype=np.float64)
        total = float(losses.sum())
        return {name: self._figure(losses[labels == place], total) for place, name in enumerate(names)}

    def _figure(self, part: Floats, total: float) -> tuple[float, int]:
        measure = self.metric.measure
        if measure == "rows":
            return float(part.size), part.size
        if measure == "loss_share":
            return (float(part.sum()) / total if total > 0 else 0.0), part.size
        if not part.size:
            return math.nan, 0
        return (float(part.mean()) if measure == "mean" else cvar(part, self.metric.level)), part.size

    def display_name(self) -> str:
        """As it stands in the report."""
        return f"By {self.metric.slice}: {_MEASURES[self.metric.measure]}"


class ColumnsLeftOut(SingleValueMetric):  # type: ignore[misc]
    """How many columns could not be compared with the reference; the report names each with its reason.

    Parameters
    ----------
    reasons: column -> why.
    """

    reasons: dict[str, str]


class ColumnsLeftOutCalculation(SingleValueCalculation[ColumnsLeftOut]):  # type: ignore[misc]
    """Counts what it was told."""

    def calculate(self, _context: Context, *_data: Dataset | None) -> SingleValue:
        """The number of columns."""
        value = self.result(len(self.metric.reasons))
        value.widget = [table(self.display_name(), ["column", "why"], list(self.metric.reasons.items()))]
        return value

    def display_name(self) -> str:
        """As it stands in the report."""
        return "Columns that could not be compared"


def _frames(context: Context, current: Dataset, reference: Dataset | None) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """All labelled rows where the report brought them beside its sample, else the data set's own."""
    more = context.additional_data
    if "losses" in more:
        return more["losses"].as_dataframe(), more["reference_losses"].as_dataframe()
    return current.as_dataframe(), None if reference is None else reference.as_dataframe()


def _losses(frame: pd.DataFrame | None, column: str) -> Floats | None:
    if frame is None:
        return None
    losses: Floats = frame[column].to_numpy(dtype=np.float64)
    return losses[~np.isnan(losses)]


def _frequent(frame: pd.DataFrame, column: str) -> list[str]:
    counts = frame[column].value_counts(dropna=True)
    names = [str(each) for each in counts.index[:LARGEST_SLICES]]
    return [*names, OTHERS] if len(counts) > LARGEST_SLICES or frame[column].isna().any() else names


def _labels(column: pd.Series, names: list[str]) -> np.ndarray:
    """For each row the place of its value in `names`, or that of the others."""
    codes, values = pd.factorize(column, use_na_sentinel=True)
    place = {name: number for number, name in enumerate(names)}
    others = place.get(OTHERS, len(names))
    known = np.array([place.get(str(value), others) for value in values] + [others], dtype=np.int64)
    found: np.ndarray = known[codes]
    return found


def _two(now: float, then: float | None) -> dict[str, str]:
    cells = {"this window": f"{now:.3f}"}
    return cells if then is None else cells | {"reference": f"{then:.3f}"}
