"""The page of one model, from what the tables and the registry hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from flows import ledger
from flows.card import card_beside_page
from flows.context import Context
from flows.early_warning import early_signs
from flows.incidents import open_incidents
from flows.ledger import Entry
from flows.lives import Life, current_life, reference_of
from flows.monitor import WindowOutcome, outcomes
from flows.promotions import MOVED
from flows.received import input_warnings, received
from flows.workspace import write_atomically
from monitoring.attribution import Finding
from monitoring.dashboard import FIGURES, write_index, write_page
from monitoring.hard_errors import HardErrors
from monitoring.notes import note_of
from monitoring.ordinary import NORMAL_95, between_weeks, figures_of
from monitoring.page_data import (
    Bought,
    Budget,
    Carried,
    EarlyLine,
    LedgerLine,
    Named,
    OpenIncident,
    PageData,
    VersionLine,
    Weeks,
    WindowPoint,
)
from monitoring.places_map import PlacesMap
from monitoring.sentences import finding_sentence
from monitoring.words import LANGUAGES

LEDGER_LINES = 40
"""So many entries of the ledger are on the page; all are in the table."""

PLACES = 5
"""So many places are on the page even where they are no more than chance."""

LEAST_WEEK = 50
"""A week of the reference with fewer rows says little of how much ordinary weeks differ."""


def refresh_page(context: Context, *, now: datetime) -> Path:
    """Write the model's page and the list of models; returns the page's path."""
    language = context.settings.alerts.language
    data = page_data(context, now=now)
    data = replace(data, card=card_beside_page(context, data.champion, now=now))
    path = write_page(data, context.workspace.page, language)
    # The last page of each month stays, in the same folder, so that its links hold.
    write_atomically(path.with_name(f"{now:%Y-%m}.html"), path.read_bytes())
    root = context.workspace.page.parent
    models = sorted(folder.name for folder in root.iterdir() if (folder / "index.html").exists())
    write_index(models, root, language)
    return path


def page_data(context: Context, *, now: datetime) -> PageData:
    """Everything that the page shows."""
    life = current_life(context.store)
    entries = ledger.read(context.store)
    looks = outcomes(context)
    promoted = _promotions(entries, looks)
    placed = next((look for look in reversed(looks) if look.details.get("places")), None)
    return PageData(
        model=context.settings.name,
        written_at=now,
        champion=life.model_version if life else None,
        champion_since=_in_use_since(entries, life),
        points=[_point(look, promoted, context) for look in looks],
        named=_named(placed),
        named_window=placed.window if placed else "",
        incidents=[
            OpenIncident(
                one.key, one.verdict, one.value, one.column, one.share, one.since, one.state, one.answer,
                one.challenger_version, one.held,
                (one.span["column"], one.span["value"]) if one.span is not None else None,
            )
            for one in open_incidents(context.store)
        ],
        ledger=[_line(entry) for entry in reversed(entries[-LEDGER_LINES:])],
        received=received(context, now=now),
        inputs=input_warnings(context, life.model_version if life else None),
        early=early_lines(context, looks),
        links=links(context),
        budget=_budget(context, life, looks),
        ordinary=_ordinary(context, life, looks),
        weeks=_weeks(looks),
        months=_months(context.workspace.page, now),
        carried=_carried(looks),
        **_bought(looks),
        **_map(looks),
    )  # fmt: skip


def links(context: Context) -> dict[str, str]:
    """Where training runs and pipeline runs are shown: servers that the config names, or those of `softad up`."""
    settings, root = context.settings, context.workspace.root
    found = {"mlflow": context.tracker.uri}
    if settings.services.prefect is not None:
        found["prefect"] = settings.services.prefect.rstrip("/").removesuffix("/api")
    if (root / "run" / "up.json").exists():
        from flows.up import running

        where = running(root)
        if where is not None:
            found = {"prefect": where.prefect, "mlflow": where.mlflow} | {
                name: address for name, address in found.items() if address.startswith("http")
            }
    # No name and no password of a user in an address.
    return {
        name: re.sub(r"//[^/@]*@", "//", address)
        for name, address in found.items()
        if address.startswith(("http://", "https://"))
    }


def _in_use_since(entries: Sequence[Entry], life: Life | None) -> datetime | None:
    """Since when the model in use is: a watch that begins anew with the same model begins later."""
    if life is None:
        return None
    newest = max((entry for entry in entries if entry.action == MOVED), key=lambda entry: entry.at, default=None)
    return newest.at if newest is not None and newest.subject == life.model_version else life.started_at


def _budget(context: Context, life: Life | None, looks: list[WindowOutcome]) -> Budget:
    """How much of the alarm budget the present life has used, and how many of its windows have passed."""
    watch = context.settings.monitoring
    mine = [look for look in looks if life is not None and look.life == life.name and look.budget_spent is not None]
    spent = mine[-1].budget_spent if mine else None
    return Budget(watch.alarm_budget, watch.windows, len(mine), spent or 0.0)


def _ordinary(context: Context, life: Life | None, looks: list[WindowOutcome]) -> dict[str, float]:
    """How much each figure differs between ordinary weeks: those of the reference, and those judged healthy since."""
    if life is None:
        return {}
    reference = reference_of(context.store, life)
    weeks = [
        figures_of(losses.to_numpy(float))
        for _, losses in reference.groupby("window")["loss"]
        if len(losses) >= LEAST_WEEK
    ]
    since = [look for look in looks if look.life == life.name and look.verdict == "healthy"][:-1]
    seen = [*weeks, *(_measured(look.figures) for look in since)]
    return {name: between_weeks(week[name] for week in seen if name in week) for name in FIGURES}


def _measured(figures: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """The three figures of a window, each with its standard error."""
    return {
        name: (figures[name]["value"], (figures[name]["high"] - figures[name]["low"]) / (2 * NORMAL_95))
        for name in FIGURES
        if name in figures
    }


def _months(folder: Path, now: datetime) -> list[str]:
    """The months of which a page is kept, this one too, newest first."""
    kept = {path.stem for path in folder.glob("[0-9][0-9][0-9][0-9]-[0-9][0-9].html")}
    return sorted({*kept, f"{now:%Y-%m}"}, reverse=True)


def _bought(looks: list[WindowOutcome]) -> dict[str, Any]:
    """Champion against ordinary training, in the newest window where both judged the same rows."""
    look = next((look for look in reversed(looks) if look.figures.get("bought")), None)
    if look is None:
        return {}
    found = look.figures["bought"]
    lines = [
        Bought(name, found[name]["value"], found[name]["low"], found[name]["high"])
        for name in ("mean", "tail", "stability")
    ]
    return {"bought": lines, "bought_window": look.window, "bought_rows": found["rows"]}


def _map(looks: list[WindowOutcome]) -> dict[str, Any]:
    """Hard cases by two columns, in the newest window in which they were counted."""
    look = next((look for look in reversed(looks) if look.details.get("map")), None)
    return {} if look is None else {"map": PlacesMap.from_dict(look.details["map"]), "map_window": look.window}


def _carried(looks: list[WindowOutcome]) -> Carried | None:
    """The Lorenz curves of the newest window that has some."""
    look = next((look for look in reversed(looks) if look.figures.get("lorenz")), None)
    return None if look is None else Carried(look.window, **look.figures["lorenz"])


def _weeks(looks: list[WindowOutcome]) -> Weeks | None:
    """The weeks of the reference, as the newest look tells of them."""
    told = next((look.details["weeks"] for look in reversed(looks) if look.details.get("weeks")), None)
    return None if told is None else Weeks(told["weeks"], told["spread"], told["by_chance"], told["exceeds"])


def early_lines(context: Context, looks: list[WindowOutcome]) -> list[EarlyLine]:
    """What was told of each window before its labels, with what the labels of the same life then said."""
    judged = {(look.life, look.window): look for look in looks if look.state not in {"too_few_labels", "reference"}}
    lines = []
    for sign in early_signs(context):
        look = judged.get((sign.life, sign.window))
        verdict = look.verdict if look is not None else None
        measured = look.figures.get("mean", {}).get("value") if look is not None else None
        lines.append(EarlyLine(
            sign.window, [(one["kind"], one["column"] or "") for one in sign.signs], sign.predicted_loss, verdict,
            measured, None if verdict in {None, "too_few_labels"} else verdict in {"inspect", "retrain"},
        ))  # fmt: skip
    return lines


def _promotions(entries: list[ledger.Entry], looks: list[WindowOutcome]) -> set[str]:
    """The windows after which a model was put to use."""
    moved = [entry.at for entry in entries if entry.action == "champion.set"]
    found = set()
    for at in moved:
        before = [look.window for look in looks if look.at <= at]
        if before:
            found.add(before[-1])
    return found


def _point(look: WindowOutcome, promoted: set[str], context: Context) -> WindowPoint:
    figures: dict[str, Any] = look.figures
    erm = figures.get("erm", {})

    def value(source: dict[str, Any], name: str) -> float | None:
        return source[name]["value"] if name in source else None

    return WindowPoint(
        window=look.window, labelled=look.labelled, verdict=look.verdict, alarm=look.alarm,
        held_back=look.details.get("reason") == "held_back",
        mean=value(figures, "mean"), tail=value(figures, "tail"), stability=value(figures, "stability"),
        erm_mean=value(erm, "mean"), erm_tail=value(erm, "tail"), erm_stability=value(erm, "stability"),
        statistic=look.statistic, threshold=look.threshold, budget_spent=look.budget_spent,
        promoted=look.window in promoted,
        errors={name: error for name, (_, error) in _measured(figures).items()},
        report=_report(look, context),
        versions=[VersionLine(**one) for one in look.details.get("versions") or []],
        hard=HardErrors(**figures["hard"]) if figures.get("hard") else None,
    )  # fmt: skip


def _report(look: WindowOutcome, context: Context) -> str | None:
    if look.report is None:
        return None
    # HTML is kept for alarms and the last windows only.
    html = Path(look.report).with_suffix(".html").name
    name = html if (context.workspace.reports / html).exists() else look.report
    return f"../../reports/{context.settings.name}/{name}"


def _named(look: WindowOutcome | None) -> list[Named]:
    if look is None:
        return []
    found = [
        (one, Finding(**{name: one[name] for name in one if name in Finding.__dataclass_fields__}))
        for one in look.details["places"]
        if one["share"] > 0
    ]
    shown = [pair for place, pair in enumerate(found) if place < PLACES or pair[1].significant or pair[1].grew]
    return [
        Named(
            one["column"], str(one["value"]), one["share"], one["low"], one["high"], one["row_share"],
            {language: finding_sentence(finding, language) for language in LANGUAGES},
        )
        for one, finding in shown[:8]
    ]  # fmt: skip


def _line(entry: ledger.Entry) -> LedgerLine:
    notes = {language: note_of(entry.action, entry.details, language) for language in LANGUAGES}
    return LedgerLine(entry.at, entry.actor, entry.action, str(entry.subject), notes)
