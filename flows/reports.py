"""A report that was pruned, built again on demand from the tables, with the verdict that was given then."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from flows.context import Context
from flows.due import rows_then, with_features
from flows.errors import BadConfig, Refused
from flows.lives import Life, life_named
from flows.monitor import WindowOutcome, outcomes, reference_at, report_of
from flows.window_figures import with_losses
from flows.workspace import write_atomically


def find_look(context: Context, window: str) -> WindowOutcome:
    """The look at a window that has a report: the newest life's, and of several ages the one that is shown.

    Raises
    ------
    BadConfig: there is no such window, or it was never judged.
    """
    looks = outcomes(context)
    named = [look for look in looks if look.window == window]
    if not named:
        names = sorted({look.window for look in looks})
        known = (
            f"there are {names[0]} to {names[-1]}" if len(names) > 1 else ", ".join(names) or "none is judged so far"
        )
        raise BadConfig(f"there is no window {window!r}; {known} (softad status)")
    judged = [look for look in named if look.report is not None]
    if not judged:
        why = {"reference": "it went to the reference", "too_few_labels": "it has too few labels"}
        raise BadConfig(
            f"window {window} has no report: {why.get(named[-1].state, named[-1].state)}, so it was not judged"
        )
    return judged[-1]


def rebuild_report(context: Context, window: str, *, to: Path | None = None) -> Path:
    """The HTML report of a window; as it lies there, or built again.

    Parameters
    ----------
    to: the file; by default where the report was first.

    Raises
    ------
    BadConfig: there is no such window, or it was never judged.
    Refused: the tables do not give the same verdict any more, because rows or labels were changed since.
    """
    look = find_look(context, window)
    kept = context.workspace.reports / str(look.report)
    page = kept.with_suffix(".html")
    target = (to or page).absolute()
    if page.exists():
        if target != page.absolute():
            write_atomically(target, page.read_bytes())
        return target
    life = life_named(context.store, look.life)
    due = rows_then(context, life, window, look.age, at=look.at)
    changed = Refused(
        f"the report of {window} cannot be built as it was: rows or labels were corrected since it was judged; its "
        f"numbers are kept in {kept}"
    )
    if due is None or len(due.rows) != look.labelled:
        raise changed
    judged = with_losses(context, with_features(context, due).rows, look.model_version)
    if len(judged) != look.labelled:
        raise changed
    state, earlier = _before(context, life, look)
    with tempfile.TemporaryDirectory() as folder:
        html = Path(folder) / "report.html"
        report = report_of(
            context, reference_at(context, life, look.age), judged, window=window, age=look.age, state=state,
            earlier=earlier, json=html.with_suffix(".json"), html=html, threshold=look.threshold,
        )[0]  # fmt: skip
        verdict = report.verdict.kind if report.verdict is not None else None
        same = (
            report.alarm == look.alarm and verdict == look.verdict and _close(report.result.statistic, look.statistic)
        )
        if not same:
            raise changed
        write_atomically(target, html.read_bytes())
    return target


def _before(
    context: Context, life: Life, look: WindowOutcome
) -> tuple[dict[str, Any], list[tuple[str, float | None, float | None]]]:
    """The scan as it was before a look, and window, statistic and threshold of the looks until then."""
    frame = context.store.read(
        "windows", columns=["window", "scan", "report", "statistic", "threshold"],
        where=f"life = '{life.name}' AND scan IS NOT NULL",
    )  # fmt: skip
    states = [json.loads(text) for text in frame["scan"]]
    own = next(_place(state) for state, report in zip(states, frame["report"], strict=True) if report == look.report)
    order = sorted(range(len(states)), key=lambda number: _place(states[number]))
    before = [number for number in order if _place(states[number]) < own]
    rows = frame.iloc[before]
    readings = [
        (str(name), _number(statistic), _number(threshold))
        for name, statistic, threshold in zip(rows["window"], rows["statistic"], rows["threshold"], strict=True)
    ]
    first = life.scan
    if first is None:
        raise ValueError(f"{life.name} has no scan")
    return (states[before[-1]] if before else first), readings


def _place(state: dict[str, Any]) -> tuple[int, bool]:
    return state["position"], state["last"] is not None and state["last"][1]


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _close(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and math.isclose(one, other, rel_tol=1e-9))
