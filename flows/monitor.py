"""Judging the windows that are due: labels joined, losses scanned inside the Evidently report, a verdict recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from flows.context import Context
from flows.dataset import window_bounds, window_complete, window_of
from flows.early_warning import look_early
from flows.lives import Life, current_life, extend_reference
from flows.reference import feature_columns, reference_rows
from flows.score import score_rows
from flows.settings import Settings
from flows.store import current_labels, current_rows
from flows.window_figures import figures_by_version, window_figures, with_losses

if TYPE_CHECKING:
    from monitoring.scan import ConcentrationScan
    from monitoring.verdict import Verdict

MOSTLY_LABELLED = 0.8
"""A window whose labels had their time on the calendar is looked at once this share of its rows is labelled."""


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


@dataclass(frozen=True)
class DueWindow:
    """A window whose labels had their time.

    `rows` are the labelled ones; from `due_windows` with what a window is told by, after `with_features` with all that
    judging needs.
    """

    window: str
    start: datetime | None
    end: datetime | None
    cutoff: datetime
    rows: pd.DataFrame


def scan_options(settings: Settings, window_size: int) -> dict[str, Any]:
    """Arguments of `ConcentrationScan` as the configuration states them."""
    watch = settings.monitoring
    return {
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
    outcomes = []
    for due in due_windows(context, life, now=now):
        if progress is not None:
            progress(due.window)
        whole = with_features(context, due)
        outcome = judge(context, current_life(context.store) or life, whole, now=now, threshold=threshold)
        if outcome is not None:
            outcomes.append(outcome)
    return outcomes


def due_windows(context: Context, life: Life, *, now: datetime) -> list[DueWindow]:
    """Windows whose labels had their time by `now`, without those that were judged.

    A calendar window is due when it ended `label_age_days` ago, and its rows are mostly labelled or arrived that long
    ago; a window of N rows when it is complete, under the same condition. None of this looks at a loss.
    """
    settings, store = context.settings, context.store
    # A correction keeps its place in the order of arrival, so a row that trained the model never comes back here.
    rows = current_rows(store, columns=["_id", "_version", "_seq", "_time", "_at"], where=f"_seq > {life.after_seq}")
    if rows.empty:
        return []
    judged = store.read("windows", columns=["life", "window", "state", "labelled"], where=f"life = '{life.name}'")
    final = set(judged.loc[judged["state"] != "too_few_labels", "window"])
    newest = int(rows["_seq"].max())
    rows = rows.assign(_window=window_of(rows, settings))
    rows = rows[~rows["_window"].isin(final)]
    if rows.empty:
        return []
    labels = current_labels(store, columns=["_id", "label", "label_value", "_time"])
    rows = rows.merge(labels.rename(columns={"_time": "_label_time"}), on="_id", how="left")
    attempts = judged.groupby("window")["labelled"].max().to_dict()
    age = timedelta(days=settings.monitoring.label_age_days)
    due = []
    for key, part in rows.groupby("_window", sort=True):
        window = str(key)
        arrived = part["_at"].max().to_pydatetime()
        if not window_complete(window, settings, newest=newest, now=now):
            continue
        start, end = window_bounds(window, settings)
        labels_due = (arrived if end is None else max(end, arrived)) + age
        labelled = part["label"].notna() & (part["_label_time"] <= max(labels_due, now if end is None else labels_due))
        aged = end is None or now >= end + age
        if not (aged and (labelled.mean() >= MOSTLY_LABELLED or now >= labels_due)):
            continue
        if attempts.get(window, -1) >= int(labelled.sum()):
            continue
        due.append(
            DueWindow(
                window, start, end, labels_due, (part if labelled.all() else part[labelled]).assign(_rows=len(part))
            )
        )
    return due


def with_features(context: Context, due: DueWindow) -> DueWindow:
    """The window with its rows' features: read when its turn comes, since rows are wide and windows may be many."""
    if due.rows.empty:
        return due
    first, last = int(due.rows["_seq"].min()), int(due.rows["_seq"].max())
    features = current_rows(
        context.store, columns=feature_columns(context, "_seq", "_version", "_image"),
        where=f"_seq BETWEEN {first} AND {last}", ordered=False,
    )  # fmt: skip
    # Nearly always the window is all there is between its first and its last row.
    if len(features) != len(due.rows):
        features = features[features["_id"].isin(due.rows["_id"])]
    features = features.sort_values(["_seq", "_id"], kind="stable", ignore_index=True)
    # Both are in order of arrival, so nothing has to be looked up.
    narrow = due.rows.sort_values(["_seq", "_id"], kind="stable", ignore_index=True)
    if not narrow["_id"].equals(features["_id"]):
        raise ValueError(f"window {due.window}: its rows changed while they were read")
    told = [name for name in narrow.columns if name not in features.columns]
    return replace(due, rows=features.assign(**{name: narrow[name] for name in told}))


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
        "labelled": len(judged), "model_version": life.model_version, "at": now,
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
    from monitoring.report import run_report
    from monitoring.scan import ConcentrationScan

    settings, workspace = context.settings, context.workspace
    watch = settings.monitoring
    state, earlier = _scan_state(context, life)
    scan = ConcentrationScan.from_dict(state)
    reference = reference_rows(context, life)
    folder = workspace.reports
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{life.name}-{due.window}"
    versions = figures_by_version(context, due.rows)
    where = places_map(judged, reference, settings.data.slices)
    report = run_report(
        current=judged, reference=reference, scan=scan, window=due.window, numeric=settings.data.numeric,
        categorical=settings.data.categorical, sample_rows=watch.report_rows, seed=watch.seed,
        json=folder / f"{name}.json", html=folder / f"{name}.html" if watch.html_reports else None,
        threshold=threshold, slices=settings.data.slices, inspect_share=watch.inspect_share,
        language=settings.alerts.language, earlier=earlier,
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
            "drift_share": report.drift_share, "drifted": report.drifted,
        },
        report=report.json.name,
    )  # fmt: skip
    return outcome, scan.to_dict()


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
    key = f"{outcome.life}:{outcome.window}"
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
    """All looks so far, in the order in which they were made; a later look at the same window replaces the earlier."""
    # A further look at a window is made for further labels alone, so their number orders two looks of one moment.
    frame = context.store.read("windows", order='"at", "end", "window", "labelled"')
    found: dict[tuple[str, str], WindowOutcome] = {}
    for row in frame.to_dict("records"):
        row.pop("scan", None)
        for name in ("figures", "findings", "details"):
            row[name] = json.loads(row[name]) if isinstance(row[name], str) else {}
        for name in ("start", "end", "at"):
            row[name] = None if pd.isna(row[name]) else row[name].to_pydatetime()
        for name in ("statistic", "threshold", "budget_spent"):
            row[name] = None if pd.isna(row[name]) else float(row[name])
        row["report"] = row["report"] if isinstance(row["report"], str) else None
        names = WindowOutcome.__dataclass_fields__
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
