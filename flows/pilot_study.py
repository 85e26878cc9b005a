"""`softad pilot`: which way of training suits a file, ERM and the plain baselines among the candidates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from flows.columns import look
from flows.console import Reply
from flows.errors import BadInput
from flows.proposal_label import find_label
from flows.proposal_sample import take_sample
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
    sample = take_sample(data)
    truth = pd.Series(find_label(look(sample.frame), label, data=data.name).rows, index=sample.frame.index)
    known = (truth != "").to_numpy()
    frame = sample.frame.loc[known]
    features = pd.DataFrame(
        {name: pd.to_numeric(frame[name], errors="coerce") for name in settings.data.numeric}
        | {name: frame[name].astype(object) for name in settings.data.categorical}
    )
    classes = settings.task.kind == "classification"
    answers: Any = truth[known].to_numpy(dtype=object) if classes else truth[known].astype(float).to_numpy()
    groups = frame[settings.data.group].to_numpy(dtype=object) if settings.data.group else None
    try:
        report = pilot(
            features, answers, budget_seconds=budget_seconds, task=settings.task.kind, groups=groups,
            normal=settings.task.normal if classes else None, random_state=seed,
            progress=None if say is None else lambda share, what: say(f"{what} ({min(share, 1.0):.0%} of the budget)"),
        )  # fmt: skip
    except ValueError as error:
        raise BadInput(f"{data.name}: {error}") from error
    page.parent.mkdir(parents=True, exist_ok=True)
    part = page.with_suffix(".part")
    report.write_html(part)
    part.replace(page)
    write_atomically(page.with_suffix(".json"), _json(report.to_dict()))
    chosen = report.recommendation
    lines: list[Any] = [
        f"{data.name}: {report.rows} rows, {report.rounds} rounds, {len(report.candidates)} ways of training",
        _table(report),
        f"recommended: {chosen.name}. {chosen.reason}",
        *([f"{chosen.case}: {chosen.case_reason}"] if chosen.case else []),
        *report.notes,
        f"the page: {page}",
    ]
    return Reply({**report.to_dict(), "page": str(page)}, lines)


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


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1) + "\n"
