"""The report of one window, on Evidently: the only module that knows it.

The scan's update runs inside a metric of ours, that metric's test compares the statistic with the threshold, and the
alarm is read back from the snapshot that was written. So report, event and verdict cannot disagree.
"""

from __future__ import annotations

import json as jsonlib
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

# Read at Evidently's import; this module may be used without the pipeline, which sets them too.
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("ITERATIVE_DO_NOT_TRACK", "true")

from evidently import DataDefinition, Dataset, Report
from evidently._pydantic_compat import PrivateAttr
from evidently.core.metric_types import SingleValue, SingleValueCalculation, SingleValueMetric
from evidently.core.report import Context, Snapshot
from evidently.legacy.model.widget import BaseWidgetInfo
from evidently.legacy.renderers.html_widgets import CounterData, counter
from evidently.metrics import MissingValueCount, ValueDrift
from evidently.tests import lte

from monitoring.report_columns import Comparable, comparable
from monitoring.scan import ConcentrationScan
from monitoring.scan_result import ScanResult
from softad.figures import cvar, loss_concentration

DRIFT_METHOD = "psi"
"""The population stability index, for numbers and categories alike; by default Evidently's method changes with n."""

DRIFT_THRESHOLD = 0.1
"""Above what chance alone gives: with few rows the index is far from 0 where nothing changed."""


@dataclass
class _Judgement:
    """The one update of the scan, kept so that a report that is built again does not judge twice."""

    scan: ConcentrationScan
    window: str
    threshold: float | None
    result: ScanResult | None = None

    def of(self, rows: pd.DataFrame) -> ScanResult:
        if self.result is None:
            self.result = self.scan.update(
                rows["loss"].to_numpy(dtype=np.float64),
                window=self.window,
                ids=rows["_id"].to_numpy(),
                lots=rows["_lot"].to_numpy() if self.scan.by_lots else None,
                threshold=self.threshold,
            )
        return self.result


class ConcentrationShift(SingleValueMetric):  # type: ignore[misc]
    """The scan's statistic for one window, as it is compared with the threshold.

    The scan's update runs in this metric's calculation. The smallest relevant effect is part of the value: where it is
    not reached, the value does not exceed the threshold.

    Parameters
    ----------
    window: its name.
    alarm_budget: of the scan.
    """

    window: str
    alarm_budget: float
    _judgement: _Judgement = PrivateAttr()


class ConcentrationShiftCalculation(SingleValueCalculation[ConcentrationShift]):  # type: ignore[misc]
    """Judges the rows of the additional data set `losses`."""

    def calculate(self, context: Context, *_data: Dataset | None) -> SingleValue:
        """Update the scan. Raises ValueError where the scan does."""
        result = self.metric._judgement.of(context.additional_data["losses"].as_dataframe())
        value = self.result(result.tested)
        value.widget = [self._widget(result)]
        return value

    def _widget(self, result: ScanResult) -> BaseWidgetInfo:
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
        return counter(title=self.display_name(), counters=[CounterData(*cell) for cell in cells.items()])

    def display_name(self) -> str:
        """As it stands in the report."""
        return f"Shift of the loss concentration in {self.metric.window}"


class LossConcentrationMetric(SingleValueMetric):  # type: ignore[misc]
    """How far the loss sits in few rows.

    Parameters
    ----------
    measure: mean penalty rho((loss - theta) / sigma); share of the worst tenth of rows; Gini coefficient.
    theta, sigma: mean and standard deviation of the reference's losses.
    """

    measure: Literal["penalty", "top_share", "gini"]
    theta: float
    sigma: float


class LossConcentrationCalculation(SingleValueCalculation[LossConcentrationMetric]):  # type: ignore[misc]
    """Of the additional data sets `losses` and `reference_losses`."""

    def calculate(self, context: Context, *_data: Dataset | None) -> tuple[SingleValue, SingleValue]:
        """The measure in the window and in the reference."""
        now, then = (self.result(self._measure(losses)) for losses in _losses(context))
        return now, then

    def _measure(self, losses: np.ndarray) -> float:
        if not losses.size:
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
    """

    level: float = 0.9


class TailLossCalculation(SingleValueCalculation[TailLoss]):  # type: ignore[misc]
    """Of the additional data sets `losses` and `reference_losses`."""

    def calculate(self, context: Context, *_data: Dataset | None) -> tuple[SingleValue, SingleValue]:
        """The tail in the window and in the reference."""
        now, then = (
            self.result(cvar(losses, self.metric.level) if losses.size else math.nan) for losses in _losses(context)
        )
        return now, then

    def display_name(self) -> str:
        """As it stands in the report."""
        return f"Tail of the losses (CVaR {self.metric.level:g})"


def _losses(context: Context) -> tuple[np.ndarray, np.ndarray]:
    now, then = (
        context.additional_data[name].as_dataframe()["loss"].to_numpy(dtype=np.float64)
        for name in ("losses", "reference_losses")
    )
    return now, then


@dataclass(frozen=True)
class WindowReport:
    """What the report of one window says, read back from its JSON.

    Attributes
    ----------
    alarm: the test of the scan's statistic failed.
    result: of the scan.
    statistic, threshold: as tested; None where there was no test.
    drift_share: share of the compared features that drifted, 0 to 1.
    drifted: their names, the farthest first.
    left_out: features that could not be compared, and why.
    json, html: the files; html is None where none was asked for.
    """

    alarm: bool
    result: ScanResult
    statistic: float | None
    threshold: float | None
    drift_share: float
    drifted: list[str]
    json: Path
    html: Path | None
    left_out: dict[str, str] = field(default_factory=dict)


def run_report(
    *,
    current: pd.DataFrame,
    reference: pd.DataFrame,
    scan: ConcentrationScan,
    window: str,
    numeric: Sequence[str],
    categorical: Sequence[str],
    json: Path,
    sample_rows: int = 1_000,
    seed: int = 0,
    html: Path | None = None,
    threshold: float | None = None,
) -> WindowReport:
    """Judge a window inside an Evidently report, and write the report.

    After an error, `scan` may have been updated without a report: go on from its last saved state.

    Parameters
    ----------
    current, reference: rows of the window and of the reference, with `_id`, `loss` (NaN without a label), the features
        and, where the scan ranks lots, `_lot`. No row of them is written into the report.
    scan: fitted; it is updated.
    window: its name, as the scan knows it.
    numeric, categorical: features to compare with the reference's.
    json: file of the snapshot: Evidently's `metrics` and `tests`, with `window`, `scan` and `left_out` beside them.
    sample_rows: most rows of the sample on which features are compared; losses are all used.
    seed: of the sample.
    html: file of the page, 4 to 6 MB; None: not written.
    threshold: replaces the scan's threshold where there is one, for a drill; the smallest relevant effect still counts.

    Raises
    ------
    ValueError: from the scan, for example where the window was judged already.
    OSError: a file cannot be written.
    """
    labelled = current[current["loss"].notna()]
    reference_losses = reference.loc[reference["loss"].notna(), ["_id", "loss"]]
    units = labelled["_lot"].nunique() if scan.by_lots else len(labelled)
    limit = scan.threshold_for(units, window=window)
    if limit is not None and threshold is not None:
        limit = float(threshold)
    shift = ConcentrationShift(
        window=window, alarm_budget=scan.alarm_budget, tests=[] if limit is None else [lte(limit)]
    )
    shift._judgement = judgement = _Judgement(scan, window, threshold)
    theta, sigma = float(reference_losses["loss"].mean()), float(reference_losses["loss"].std(ddof=0))
    own = [
        shift,
        *(LossConcentrationMetric(measure=each, theta=theta, sigma=sigma) for each in ("penalty", "top_share", "gini")),
        TailLoss(level=0.9),
    ]
    kept = ["_id", "loss", *(["_lot"] if scan.by_lots else [])]
    losses = {"losses": _plain(labelled[kept]), "reference_losses": _plain(reference_losses)}
    clean = comparable(current, reference, numeric=numeric, categorical=categorical, sample_rows=sample_rows, seed=seed)
    snapshot, clean = _run(own, clean, losses)
    if judgement.result is None:
        raise RuntimeError("Evidently did not run the scan's metric")
    extra = {"window": window, "scan": judgement.result.to_dict(), "left_out": clean.left_out}
    document = _without_nan(jsonlib.loads(snapshot.json()) | extra)
    if html is not None:
        _write_atomically(html, snapshot.get_html_str(as_iframe=False))
    _write_atomically(json, jsonlib.dumps(document, ensure_ascii=False, allow_nan=False))
    return read_report(json, result=judgement.result, html=html)


def read_report(json: Path, *, result: ScanResult, html: Path | None = None) -> WindowReport:
    """What a written report says.

    Raises
    ------
    RuntimeError: the report and the scan's result disagree, which must never be.
    """
    document = jsonlib.loads(json.read_text(encoding="utf-8"))
    tests = [each for each in document["tests"] if _kind(each["metric_config"]["params"]) == "ConcentrationShift"]
    alarm = any(each["status"] == "FAIL" for each in tests)
    if alarm != result.alarm:
        raise RuntimeError(f"{json}: the report says alarm {alarm}, the scan {result.alarm}")
    values = {_kind(each["config"]): each["value"] for each in document["metrics"]}
    drift = {
        each["config"]["column"]: (each["value"], each["config"]["threshold"])
        for each in document["metrics"]
        if _kind(each["config"]) == "ValueDrift"
    }
    drifted = [name for name, (value, limit) in drift.items() if value is not None and value > limit]
    return WindowReport(
        alarm=alarm,
        result=result,
        statistic=values["ConcentrationShift"] if tests else None,
        threshold=tests[0]["test_config"]["threshold"] if tests else None,
        drift_share=len(drifted) / len(drift) if drift else 0.0,
        drifted=sorted(drifted, key=lambda name: -(drift[name][0] / drift[name][1])),
        json=json,
        html=html,
        left_out=document["left_out"],
    )


def _kind(config: dict[str, Any]) -> str:
    return str(config["type"]).rsplit(":", maxsplit=1)[-1]


def _run(own: list[Any], clean: Comparable, losses: dict[str, Dataset]) -> tuple[Snapshot, Comparable]:
    """Run the report; a column that Evidently cannot compare is named and left out, the rest is computed."""
    try:
        return _run_once(own, clean, losses), clean
    except Exception:
        reasons = {}
        for name in clean.current.columns:
            others = [each for each in clean.current.columns if each != name]
            try:
                _run_once([], clean.without(dict.fromkeys(others, "")), losses)
            except Exception as error:  # any of a foreign library's errors about this one column
                reasons[name] = f"Evidently cannot compare it: {type(error).__name__}: {error}"
        if not reasons:
            raise
    clean = clean.without(reasons)
    return _run_once(own, clean, losses), clean


def _run_once(own: list[Any], clean: Comparable, losses: dict[str, Dataset]) -> Snapshot:
    columns = [*clean.numeric, *clean.categorical]
    metrics = [
        *own,
        *(ValueDrift(column=name, method=DRIFT_METHOD, threshold=_drift_threshold(clean, name)) for name in columns),
        *(MissingValueCount(column=name) for name in columns),
    ]
    definition = DataDefinition(numerical_columns=clean.numeric, categorical_columns=clean.categorical)
    now, then = (Dataset.from_pandas(each, data_definition=definition) for each in (clean.current, clean.reference))
    return Report(metrics).run(now, then, additional_data=losses)


def _drift_threshold(clean: Comparable, name: str) -> float:
    """The index that a change must reach: twice what chance gives on average, and DRIFT_THRESHOLD more."""
    now, then = clean.current[name].dropna(), clean.reference[name].dropna()
    levels = 12 if name in clean.numeric else pd.concat([now, then]).nunique()
    return round(DRIFT_THRESHOLD + 2 * max(levels - 1, 1) * (1 / len(now) + 1 / len(then)), 4)


def _plain(frame: pd.DataFrame) -> Dataset:
    return Dataset.from_pandas(frame.reset_index(drop=True), data_definition=DataDefinition(numerical_columns=["loss"]))


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN: what could not be computed is null."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        part.chmod(0o644)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
