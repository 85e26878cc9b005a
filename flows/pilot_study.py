"""`softad pilot`: which way of training suits a file, ERM and the plain baselines among the candidates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.columns import Column
from flows.console import Reply
from flows.errors import BadInput
from flows.propose import propose
from flows.workspace import write_atomically

SHOWN = 8
"""Candidates in the printed table; the page has all."""


def run_pilot(
    data: Path,
    *,
    label: str | None,
    group: str | None,
    regression: bool,
    budget_seconds: float,
    page: Path,
    seed: int,
    say: Callable[[str], None] | None,
) -> Reply:
    """Train the candidates on the file's rows and write the page.

    Columns are taken as `softad init` would take them: what gives the label away is left out.

    Parameters
    ----------
    label, group: columns whose role a person knows; found otherwise.
    budget_seconds: of training; reading the file comes on top.
    page: where the HTML goes.

    Raises
    ------
    BadInput: the file cannot be read, or its rows cannot be compared on (too few, one class only).
    BadConfig: a named column is not there, or the label cannot be told.
    """
    from softad.tuning import pilot

    proposal = propose(data, label=label, group=group, regression=regression)
    settings = proposal.settings
    if settings.data.image is not None:
        raise BadInput(f"{data.name}: pilots take tables, and the features here are images; train with `softad run`")
    columns = {column.name: column for column in proposal.columns}
    known = proposal.label != ""
    features = pd.DataFrame(
        {name: columns[name].numbers for name in settings.data.numeric}
        | {name: _texts(columns[name]) for name in settings.data.categorical}
    )
    classes = settings.task.kind == "classification"
    answers: Any = proposal.label if classes else columns[str(settings.data.label)].numbers
    groups = _texts(columns[settings.data.group])[known] if settings.data.group else None
    try:
        report = pilot(
            features[known], answers[known], budget_seconds=budget_seconds, task=settings.task.kind, groups=groups,
            normal=settings.task.normal if classes else None, random_state=seed,
            progress=None if say is None else lambda share, what: say(f"{what} ({min(share, 1.0):.0%} of the budget)"),
        )  # fmt: skip
    except ValueError as error:
        raise BadInput(f"{data.name}: {error}") from error
    page.parent.mkdir(parents=True, exist_ok=True)
    part = page.with_suffix(".part")
    report.write_html(part)
    part.replace(page)
    document = report.to_dict()
    write_atomically(page.with_suffix(".json"), json.dumps(document, indent=1) + "\n")
    chosen = report.recommendation
    lines: list[Any] = [
        f"{data.name}: {report.rows} rows, {report.rounds} rounds, {len(report.candidates)} ways of training",
        _table(report),
        f"recommended: {chosen.reason}",
        *([f"{chosen.case}: {chosen.case_reason}"] if chosen.case else []),
        *report.notes,
        f"the page: {page}",
    ]
    return Reply({**document, "page": str(page)}, lines)


def _table(report: Any) -> Any:
    """The candidates with the lowest tail, and those that everything is compared with."""
    from rich.table import Table

    usable = [one for one in report.candidates if not one.diverged]
    best = sorted(usable, key=lambda one: one.figures["tail"].value)[:SHOWN]
    shown = {one.name: one for one in (usable[0], report.recommendation.candidate, *best)}
    table = Table("candidate", "mean loss", "hard cases (CVaR 0.9)", "stability (sd)")
    for name, one in shown.items():
        table.add_row(name, *(f"{one.figures[key].value:.4g}" for key in ("mean", "tail", "stability")))
    return table


def _texts(column: Column) -> np.ndarray:
    """A column's cells as they stand in the file; None where empty."""
    return np.asarray(np.array([*column.values, None], dtype=object)[column.codes])
