"""The report of one window, on Evidently, which only this module, its metrics, drifts and widgets know.

The scan's update runs inside a metric of ours, that metric's test compares the statistic with the threshold, and the
alarm is read back from the snapshot that was written; the verdict is decided inside the same metric, from the same
result. So report, event and verdict cannot disagree.
"""

from __future__ import annotations

import json as jsonlib
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# Read at Evidently's import; this module may be used without the pipeline, which sets them too.
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("ITERATIVE_DO_NOT_TRACK", "true")

from evidently import DataDefinition, Dataset, Report
from evidently.core.report import Snapshot
from evidently.metrics import MissingValueCount
from evidently.tests import lte

from monitoring.attribution import Attribution
from monitoring.report_columns import Comparable, comparable
from monitoring.report_drift import FeatureDrift
from monitoring.report_metrics import (
    ColumnsLeftOut,
    ConcentrationShift,
    Judgement,
    LossConcentrationMetric,
    SliceFigure,
    TailLoss,
)
from monitoring.report_widgets import without_markup
from monitoring.scan import ConcentrationScan
from monitoring.scan_result import ScanResult
from monitoring.sentences import verdict_sentence
from monitoring.verdict import Verdict

DRIFT_METHOD = "psi"
"""The population stability index, for numbers and categories alike; by default Evidently's method changes with n."""

DRIFT_THRESHOLD = 0.1
"""Above what chance alone gives: with few rows the index is far from 0 where nothing changed."""


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
    verdict: what to do, and why; None where the report was only read.
    attribution: where the excess sits; None where nothing had to be explained.
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
    verdict: Verdict | None = field(default=None, compare=False)
    attribution: Attribution | None = field(default=None, compare=False)


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
    slices: Sequence[str] = (),
    inspect_share: float = 0.5,
    language: str = "en",
    earlier: Sequence[tuple[str, float | None, float | None]] = (),
    age: float | None = None,
) -> WindowReport:
    """Judge a window inside an Evidently report, and write the report.

    After an error, `scan` may have been updated without a report: go on from its last saved state.

    Parameters
    ----------
    current, reference: rows of the window and of the reference, with `_id`, `loss` (NaN without a label), the features
        and, where the scan ranks lots, `_lot`. With `_probability` (NaN: unknown) figures and causes are of rows that
        were chosen evenly, as the scan's are. No row of them is written into the report.
    scan: fitted; it is updated.
    window: its name, as the scan knows it.
    numeric, categorical: features to compare with the reference's.
    json: file of the snapshot: Evidently's `metrics` and `tests`, with `window`, `scan` and `left_out` beside them.
    sample_rows: most rows of the sample on which features are compared; losses are all used.
    seed: of the sample.
    html: file of the page, 4 to 6 MB; None: not written.
    threshold: replaces the scan's threshold where there is one, for a drill; the smallest relevant effect still counts.
    slices: columns for figures by slice; after an alarm the cause is sought in them, and in ranges of `numeric`.
    inspect_share: share of the excess from which one slice is to be inspected.
    language: of the verdict's sentences, "en" or "ja".
    earlier: (window, statistic, threshold) of the windows before, for the picture.
    age: of the labels, needed only where the scan has several.

    Raises
    ------
    ValueError: from the scan, for example where the window was judged already.
    OSError: a file cannot be written.
    """
    # Rows may be many: they are copied only where some have no label.
    labelled, known = (
        frame if frame["loss"].notna().all() else frame[frame["loss"].notna()] for frame in (current, reference)
    )
    chances = _chances(labelled)
    even, known = _even(labelled, scan, window, age), _even(known, scan, None, age)
    units = even["_lot"].nunique() if scan.by_lots else len(even)
    representative = chances is None or not np.isnan(chances).any()
    limit = scan.threshold_for(units, window=window, age=age) if representative else None
    if limit is not None and threshold is not None:
        limit = float(threshold)
    shift = ConcentrationShift(
        window=window, alarm_budget=scan.alarm_budget, tests=[] if limit is None else [lte(limit)]
    )
    shift._judgement = judgement = Judgement(
        scan, window, threshold, labelled, known, even=even, chances=chances, age=age,
        slices=tuple(slices), ranges=tuple(numeric), inspect_share=inspect_share, seed=seed, language=language,
        earlier=tuple(earlier),
    )  # fmt: skip
    told = [name for name in slices if name in even and even[name].notna().any()]
    losses = {"losses": _plain(even[["loss", *told]]), "reference_losses": _plain(known[_present(known, told)])}
    clean = comparable(current, reference, numeric=numeric, categorical=categorical, sample_rows=sample_rows, seed=seed)
    snapshot, clean = _run([shift, *_figures(known, told)], clean, losses)
    if judgement.result is None or judgement.verdict is None:
        raise RuntimeError("Evidently did not run the scan's metric")
    verdict = judgement.verdict
    extra = {
        "window": window,
        "scan": judgement.result.to_dict(),
        "verdict": {
            "kind": verdict.kind, "reason": verdict.reason_key, "column": verdict.column, "value": verdict.value,
            "share": verdict.share, "sentence": verdict_sentence(verdict, language),
        },
        "left_out": clean.left_out,
    }  # fmt: skip
    document = _without_nan(jsonlib.loads(snapshot.json()) | extra)
    if html is not None:
        _write_atomically(html, without_markup(snapshot.get_html_str(as_iframe=False)))
    _write_atomically(json, jsonlib.dumps(document, ensure_ascii=False, allow_nan=False))
    report = read_report(json, result=judgement.result, html=html)
    return replace(report, verdict=verdict, attribution=judgement.attribution)


def _figures(reference: pd.DataFrame, slices: Sequence[str]) -> list[Any]:
    """Our metrics beside the scan's: none has a test here, since a report has one verdict."""
    theta, sigma = float(reference["loss"].mean()), float(reference["loss"].std(ddof=0))
    return [
        *(LossConcentrationMetric(measure=each, theta=theta, sigma=sigma) for each in ("top_share", "penalty", "gini")),
        TailLoss(level=0.9),
        *(SliceFigure(slice=name, measure=measure) for name in slices for measure in ("mean", "tail")),
    ]


def _chances(frame: pd.DataFrame) -> np.ndarray | None:
    """Probabilities of having been chosen for a label; None where all rows were labelled."""
    if "_probability" not in frame or (frame["_probability"] == 1.0).all():
        return None
    return frame["_probability"].to_numpy(dtype=np.float64)


def _even(frame: pd.DataFrame, scan: ConcentrationScan, window: str | None, age: float | None) -> pd.DataFrame:
    """The rows that stay when all are to have been chosen alike; all where that is not known."""
    chances = _chances(frame)
    if chances is None or np.isnan(chances).any():
        return frame
    return frame[scan.even_rows(frame["_id"].to_numpy(), chances, window=window, age=age)]


def _present(frame: pd.DataFrame, slices: Sequence[str]) -> list[str]:
    return ["loss", *(name for name in slices if name in frame)]


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
        if _kind(each["config"]) == "FeatureDrift"
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
        *([ColumnsLeftOut(reasons=clean.left_out)] if own and clean.left_out else []),
        *(FeatureDrift(column=name, method=DRIFT_METHOD, threshold=_drift_threshold(clean, name)) for name in columns),
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
