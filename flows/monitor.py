"""Judging the windows that are due: labels joined, losses scanned inside the Evidently report, a verdict recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from flows.context import Context
from flows.due import DueWindow, due_windows, with_features
from flows.early_warning import look_early
from flows.lives import Life, current_life, extend_reference
from flows.reference import reference_rows
from flows.score import score_rows
from flows.settings import Settings
from flows.units import with_units
from flows.window_figures import figures_by_version, window_figures, with_losses

if TYPE_CHECKING:
    from monitoring.report import WindowReport
    from monitoring.scan import ConcentrationScan
    from monitoring.verdict import Verdict


@dataclass(frozen=True)
class WindowOutcome:
    """What one look at one window found; a record of the table `windows`.

    Attributes
    ----------
    rows, labelled: rows of the window, and how many of them could be judged.
    state: the scan's state; "reference" where the window went to a reference that was short of rows.
    verdict: healthy | inspect | retrain | too_few_labels.
    figures: mean, tail and stability of the champion (value, low, high), the same of the ERM reference where there is
        one, concentration, and the recall of defects.
    findings: the slice that is named, then others beyond chance; empty where nobody is named.
    details: what else was found; `places` has all slices with their shares, named or not.
    age: days after the window's end by which its labels had to be there; None: no limit.
    """

    life: str
    window: str
    start: datetime | None
    end: datetime | None
    rows: int
    labelled: int
    model_version: str
    state: str
    alarm: bool
    statistic: float | None
    threshold: float | None
    budget_spent: float | None
    verdict: str
    figures: dict[str, Any]
    findings: list[dict[str, Any]]
    details: dict[str, Any]
    report: str | None
    at: datetime
    age: float | None = None


def scan_options(settings: Settings, window_size: int) -> dict[str, Any]:
    """Arguments of `ConcentrationScan` as the configuration states them."""
    watch = settings.monitoring
    # Rows have no calendar by which a label could be late: with one age, all that are there at the look count.
    limited = settings.data.window.rows is None or len(watch.label_ages) > 1
    return {
        "label_age": list(watch.label_ages) if limited else None,
        "alarm_budget": watch.alarm_budget,
        "windows": watch.windows,
        "window_size": max(window_size, 1),
        "relevant_effect": watch.relevant_effect,
        "seed": watch.seed,
    }


def close_windows(
    context: Context,
    *,
    now: datetime,
    progress: Callable[[str], None] | None = None,
    threshold: float | None = None,
) -> list[WindowOutcome]:
    """Judge every window that is due and was not judged yet, oldest first; each is judged once.

    Parameters
    ----------
    progress: told the window that is being judged.
    threshold: in place of the scan's own, for a drill.
    """
    life = current_life(context.store)
    if life is None:
        return []
    # Before a label is read: what can be told of windows that wait for theirs.
    look_early(context, life, now=now)
    outcomes: list[WindowOutcome] = []
    gathering = True
    while gathering:
        gathering = False
        for due in due_windows(context, life, now=now):
            if progress is not None:
                progress(due.window)
            outcome = judge(context, life, with_features(context, due), now=now, threshold=threshold)
            if outcome is not None:
                outcomes.append(outcome)
            if life.scan is None:
                life = current_life(context.store) or life
                # Once there is a scan, it says at which ages windows are looked at.
                gathering = life.scan is not None
                if gathering:
                    break
    return outcomes


def judge(
    context: Context, life: Life, due: DueWindow, *, now: datetime, threshold: float | None = None
) -> WindowOutcome | None:
    """Look at one window, record what was found, and return it; None when another process was quicker.

    Parameters
    ----------
    threshold: in place of the scan's own, for a drill.
    """
    settings, store = context.settings, context.store
    judged = with_losses(context, due.rows, life.model_version)
    if len(judged) < len(due.rows):
        missing_ids = due.rows.loc[~due.rows["_id"].isin(judged["_id"]), "_id"]
        score_rows(
            store, context.tracker, settings, context.workspace, now=now, ids=missing_ids, version=life.model_version
        )
        judged = with_losses(context, due.rows, life.model_version)
    total = int(due.rows["_rows"].iloc[0]) if len(due.rows) else 0
    base: dict[str, Any] = {
        "life": life.name, "window": due.window, "start": due.start, "end": due.end, "rows": total,
        "labelled": len(judged), "model_version": life.model_version, "at": now, "age": due.age,
    }  # fmt: skip
    if len(judged) < settings.monitoring.min_window_rows:
        missing = settings.monitoring.min_window_rows - len(judged)
        return _record(context, WindowOutcome(
            **base, state="too_few_labels", alarm=False, statistic=None, threshold=None, budget_spent=None,
            verdict="too_few_labels", figures={}, findings=[], details={"missing": missing}, report=None,
        ), scan=None)  # fmt: skip
    figures = window_figures(context, judged, life)
    # A process that died after the scan began left the window unrecorded, and its rows in the reference: not judged.
    if life.scan is None or store.has("references", f"reference:{life.name}:{due.window}"):
        extend_reference(
            store, life, judged[["_id", "loss"]], window=due.window,
            min_reference_rows=settings.monitoring.min_reference_rows,
            scan_options=scan_options(settings, len(judged)), now=now,
            units=partial(with_units, store, settings),
        )  # fmt: skip
        return _record(context, WindowOutcome(
            **base, state="reference", alarm=False, statistic=None, threshold=None, budget_spent=None,
            verdict="too_few_labels", figures=figures, findings=[], details={}, report=None,
        ), scan=None)  # fmt: skip
    return _record(context, *_look(context, life, due, judged, base, figures, threshold))


def _look(
    context: Context,
    life: Life,
    due: DueWindow,
    judged: pd.DataFrame,
    base: dict[str, Any],
    figures: dict[str, Any],
    threshold: float | None,
) -> tuple[WindowOutcome, dict[str, Any]]:
    from monitoring.places_map import places_map

    settings, workspace = context.settings, context.workspace
    watch = settings.monitoring
    state, earlier = _scan_state(context, life)
    folder = workspace.reports
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{life.name}-{due.name}"
    versions = figures_by_version(context, due.rows)
    reference = reference_at(context, life, due.age)
    where = places_map(judged, reference, settings.data.slices)
    report, scan = report_of(
        context, reference, judged, window=due.window, age=due.age, state=state, earlier=earlier,
        json=folder / f"{name}.json", html=folder / f"{name}.html" if watch.html_reports else None,
        threshold=threshold, twins=workspace.cache / "twins",
    )  # fmt: skip
    result, verdict, attribution = report.result, report.verdict, report.attribution
    if verdict is None:
        raise RuntimeError("the report of a window holds no verdict")
    places = [asdict(finding) for finding in attribution.findings[:10]] if attribution is not None else []
    # Where the excess is spread out nobody is named; the places are still shown, as a picture.
    named = [found for found in places if (found["column"], found["value"]) == (verdict.column, verdict.value)]
    findings = named + [found for found in places if found["significant"] and found not in named] if named else []
    _prune_reports(context, keep=watch.html_reports)
    outcome = WindowOutcome(
        **base, state=result.state, alarm=report.alarm, statistic=result.statistic, threshold=report.threshold,
        budget_spent=result.budget_spent, verdict=verdict.kind, figures=figures, findings=findings,
        details={
            "column": verdict.column, "value": verdict.value, "share": verdict.share, "reason": verdict.reason_key,
            "versions": versions, "places": places, "map": where.to_dict() if where else None,
            "range": _first_range(verdict), "weeks": _weeks(scan), "numbers": verdict.numbers,
            "effect": result.effect, "nearness": result.nearness, "improvement": result.improvement,
            "lots": result.lots, "last": due.last,
            "drift_share": report.drift_share, "drifted": report.drifted,
        },
        report=report.json.name,
    )  # fmt: skip
    return outcome, scan.to_dict()


def reference_at(context: Context, life: Life, age: float | None) -> pd.DataFrame:
    """The reference of a life with features, slices and what `flows.units` tells; only labels of at most this age."""
    reference = with_units(context.store, context.settings, reference_rows(context, life))
    return reference if age is None else reference[reference["_age"] <= age]


def report_of(
    context: Context,
    reference: pd.DataFrame,
    judged: pd.DataFrame,
    *,
    window: str,
    age: float | None,
    state: dict[str, Any],
    earlier: Sequence[tuple[str, float | None, float | None]],
    json: Path,
    html: Path | None,
    threshold: float | None = None,
    twins: Path | None = None,
) -> tuple[WindowReport, ConcentrationScan]:
    """Run the report of one look, from the scan's state before it.

    Parameters
    ----------
    reference: of the life (see `reference_at`).
    judged: rows of the window with `loss`, and what `flows.units` tells of them.
    state: of the scan before.
    earlier, json, html, threshold: as `monitoring.report.run_report` takes them.
    twins: see `monitoring.scan.ConcentrationScan.remember`; None where an old look is taken again.
    """
    from monitoring.report import run_report
    from monitoring.scan import ConcentrationScan

    settings = context.settings
    watch = settings.monitoring
    scan = ConcentrationScan.from_dict(state)
    if twins is not None:
        scan.remember(twins)
    report = run_report(
        current=judged, reference=reference, scan=scan, window=window, numeric=settings.data.numeric,
        categorical=settings.data.categorical, sample_rows=watch.report_rows, seed=watch.seed, json=json, html=html,
        threshold=threshold, slices=settings.data.slices, inspect_share=watch.inspect_share,
        language=settings.alerts.language, earlier=earlier, age=age,
    )  # fmt: skip
    return report, scan


def _weeks(scan: ConcentrationScan) -> dict[str, Any] | None:
    """How much the weeks of the reference differ, where they are told apart."""
    found = scan.week_variance
    return None if found is None else {**asdict(found), "exceeds": found.exceeds}


def _first_range(verdict: Verdict) -> dict[str, Any] | None:
    """The range of a feature that a retraining rests on, where it is one."""
    if verdict.reason_key not in {"one_range", "range_grew"}:
        return None
    return asdict(verdict.evidence[0])


def _scan_state(context: Context, life: Life) -> tuple[dict[str, Any], list[tuple[str, float | None, float | None]]]:
    """The scan after the window of this life that was judged last; and window, statistic, threshold of those so far."""
    frame = context.store.read(
        "windows", columns=["scan", "at", "life", "window", "statistic", "threshold"],
        where=f"life = '{life.name}'", order='"at", "window"',
    )  # fmt: skip
    frame = frame[frame["scan"].notna()]
    if frame.empty:
        if life.scan is None:
            raise ValueError(f"{life.name} has no scan yet: its reference is short of rows")
        return life.scan, []
    states = [json.loads(text) for text in frame["scan"]]
    newest: dict[str, Any] = max(
        states, key=lambda state: (state["position"], state["last"] is not None and state["last"][1])
    )
    columns = (frame["window"].astype(str), *(frame[name] for name in ("statistic", "threshold")))
    return newest, [(window, _number(reading), _number(limit)) for window, reading, limit in zip(*columns, strict=True)]


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _record(context: Context, outcome: WindowOutcome, scan: dict[str, Any] | None) -> WindowOutcome | None:
    record = asdict(outcome)
    for name in ("figures", "findings", "details"):
        record[name] = json.dumps(record[name], ensure_ascii=False, default=_plain)
    record["scan"] = json.dumps(scan, default=_plain) if scan is not None else None
    # With one age the key is as it was before there could be several.
    several = len(context.settings.monitoring.label_ages) > 1 and outcome.age is not None
    key = f"{outcome.life}:{outcome.window}" + (f":{outcome.age:g}d" if several else "")
    if outcome.state == "too_few_labels":
        key += f":{outcome.labelled}"
    written = context.store.append("windows", pd.DataFrame([record]), key=key)
    return outcome if written else None


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (datetime, pd.Timestamp)):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def outcomes(context: Context) -> list[WindowOutcome]:
    """All looks so far, in the order in which they were made; a later look at the same window replaces the earlier,
    unless that raised an alarm."""
    names = list(WindowOutcome.__dataclass_fields__)
    # A further look at a window is made for further labels alone, so their number orders two looks of one moment.
    frame = context.store.read("windows", columns=names, order='"at", "end", "window", "age", "labelled"')
    found: dict[tuple[str, str], WindowOutcome] = {}
    for row in frame.to_dict("records"):
        for name in ("figures", "findings", "details"):
            row[name] = json.loads(row[name]) if isinstance(row[name], str) else {}
        for name in ("start", "end", "at"):
            row[name] = None if pd.isna(row[name]) else row[name].to_pydatetime()
        for name in ("statistic", "threshold", "budget_spent", "age"):
            row[name] = None if pd.isna(row[name]) else float(row[name])
        row["report"] = row["report"] if isinstance(row["report"], str) else None
        earlier = found.get((row["life"], row["window"]))
        if earlier is not None and earlier.alarm:
            continue
        found[row["life"], row["window"]] = WindowOutcome(**{key: row[key] for key in names})
    return list(found.values())


def _prune_reports(context: Context, *, keep: int) -> None:
    """HTML is kept for alarms and the last `keep` windows; the JSON of every window stays."""
    alarms = context.store.read("windows", columns=["report", "alarm"])
    kept = set(alarms.loc[alarms["alarm"].astype(bool), "report"].dropna().str.removesuffix(".json"))
    pages = sorted(context.workspace.reports.glob("*.html"), key=lambda path: path.stat().st_mtime)
    for page in pages[: max(len(pages) - keep, 0)]:
        if page.stem not in kept:
            page.unlink(missing_ok=True)
