"""`softad demo`: a simulated line run through the real pipeline, week by week, and what came of it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flows.console import Reply
from flows.context import Context, open_context
from flows.errors import BadConfig, Unavailable
from flows.workspace import write_atomically

if TYPE_CHECKING:
    from softad.simulation import Change

HISTORY = 8
"""Weeks of labelled history before week 1."""

BAD_SHARE = 0.004
"""Share of rows with a fault of the export, so that the quarantine has something to show."""

MARKER = "demo.json"
"""Says that a workspace holds nothing but a demo, so that the next demo may replace it."""


@dataclass
class Story:
    """What the demo tells at its end."""

    weeks: list[dict[str, Any]] = field(default_factory=list)
    promotions: list[dict[str, Any]] = field(default_factory=list)
    incidents: list[dict[str, Any]] = field(default_factory=list)
    alarmed: int | None = None
    answered: int | None = None


def write_demo_config(workspace: Path) -> Path:
    """Write the demo line's config and expectations into a workspace, without touching what is there."""
    source = resources.files("configs") / "demo"
    for name in ("config.yaml", "expectations.yaml"):
        target = workspace / name
        if not target.exists():
            write_atomically(target, (source / name).read_text(encoding="utf-8"))
    return workspace / "config.yaml"


def fresh_workspace(workspace: Path) -> None:
    """Make room for a demo: an empty folder or an earlier demo is taken, a plant's workspace never.

    Raises
    ------
    BadConfig: the folder holds something else than a demo.
    """
    if workspace.exists() and any(workspace.iterdir()):
        if not (workspace / MARKER).exists():
            raise BadConfig(
                f"{workspace}: this folder is in use and was not made by a demo; name another with --workspace"
            )
        shutil.rmtree(workspace)
    write_atomically(workspace / MARKER, json.dumps({"made": "by softad demo; the next demo replaces it"}) + "\n")


def on_the_running_system(config: Path, workspace: Path) -> Path:
    """Check that `softad up` runs this model here, and that it has taken nothing in yet; returns the config.

    Raises
    ------
    BadConfig: the model has rows already.
    Unavailable: the system does not run.
    """
    from flows.up import running

    context = open_context(config, workspace)
    if running(workspace) is None and context.settings.services.prefect is None:
        raise Unavailable(f"no `softad up` of {workspace} runs; start it with this config, then run the demo again")
    if context.store.count("files"):
        raise BadConfig(f"{workspace}: {context.settings.name} has rows already; the demo needs a workspace without")
    return config


def run_demo(
    workspace: Path,
    *,
    running_config: Path | None = None,
    weeks: int,
    change: str,
    change_week: int,
    seed: int,
    answer: str,
    rows_per_week: int,
    quiet: bool,
) -> Reply:
    """Run the whole story and return it.

    Parameters
    ----------
    running_config: a model that `softad up` runs in this workspace; None: a workspace of its own, without servers.
    change: none | concentrated | spread | mean, from `change_week` on.
    answer: what the shift says a week after an alarm at one machine: new-normal | repaired.
    """
    from flows.commands import showing
    from flows.embedded import CYCLE_LIBRARIES, prepare_environment, quick_settings, start_beside
    from softad.simulation import InspectionLine

    begun = time.perf_counter()
    if running_config is None:
        fresh_workspace(workspace)
        config = write_demo_config(workspace)
    else:
        config = on_the_running_system(running_config.absolute(), workspace)
    context = open_context(config, workspace)
    prepare_environment(context.workspace.prefect)
    start_beside((*CYCLE_LIBRARIES, "great_expectations", "monitoring.report"))
    line = InspectionLine(
        seed=seed,
        rows_per_week=rows_per_week,
        change=cast("Change", change),
        change_week=None if change == "none" else change_week,
        bad_share=BAD_SHARE,
    )
    story = Story()
    with showing(quiet) as say, quick_settings(), _schedule_paused(context, running_config is not None):
        _week_by_week(context, config, line, story, weeks=weeks, answer=answer, say=say)
    measure_after(context, story)
    story.incidents = _incidents(context)
    document = {
        "weeks": story.weeks,
        "promotions": story.promotions,
        "incidents": story.incidents,
        "changed": dict(zip(("column", "value"), line.changed, strict=True)) if line.changed else None,
        "change": change,
        "change_week": None if change == "none" else change_week,
        "seed": seed,
        "page": str(context.workspace.page / "index.html"),
        "tracking_uri": context.tracker.uri,
        "seconds": round(time.perf_counter() - begun, 1),
    }
    return Reply(document, story_lines(document))


@contextmanager
def _schedule_paused(context: Context, running: bool) -> Iterator[None]:
    """The system's own cycles would take in the weeks of the past as if they had come today."""
    if not running:
        yield
        return
    from flows.deployments import POOL, connected, deployments_of

    name = context.settings.name
    with connected(None) as client:
        mine = [one for one in deployments_of(client, POOL) if one.name == name and not one.paused]
        for deployment in mine:
            client.pause_deployment(deployment.id)
    try:
        yield
    finally:
        with connected(None) as client:
            for deployment in mine:
                client.resume_deployment(deployment.id)


def _week_by_week(
    context: Context, config: Path, line: Any, story: Story, *, weeks: int, answer: str, say: Any
) -> None:
    from flows.commands import run_cycle

    for week in range(-HISTORY + 1, weeks + 1):
        drop(context, line, week)
        if week < 0:
            continue
        if week > 0:
            _answer(context, line, story, week, answer)
        if say is not None:
            say(f"week {week} of {weeks}" if week > 0 else f"{HISTORY} weeks of history, and the first model")
        report = run_cycle(config, context, now=after(line, week))
        if week > 0:
            story.weeks.append(week_document(report, week, key=line.week_key(week)))
        for action in report.actions:
            if action.decision is not None:
                story.promotions.append({"week": max(week, 0), **action.promotion()})
        if story.alarmed is None and any(outcome.alarm for outcome in report.outcomes):
            story.alarmed = week


def drop(context: Context, line: Any, week: int) -> None:
    """Put a week's files into the inbox, as the plant's systems would: rows, and their labels."""
    data = line.week(week)
    inbox = context.workspace.inbox
    name = line.week_key(week)
    for frame, path in ((data.inspections, inbox / f"{name}.csv"), (data.labels, inbox / "labels" / f"{name}.csv")):
        part = path.with_suffix(".part")
        frame.to_csv(part, index=False)
        long_ago = time.time() - 3600
        os.utime(part, (long_ago, long_ago))
        part.replace(path)


def after(line: Any, week: int) -> datetime:
    """When a week is judged: three days after its end, in the morning."""
    day = line.start + timedelta(weeks=week, days=3)
    return datetime(day.year, day.month, day.day, 6, tzinfo=UTC)


def _answer(context: Context, line: Any, story: Story, week: int, answer: str) -> None:
    """A week after the alarm the shift answers."""
    from flows.incidents import open_incidents
    from flows.people import answer_incident

    if story.alarmed is None or story.answered is not None or week != story.alarmed + 1:
        return
    waiting = [incident for incident in open_incidents(context.store) if incident.verdict == "inspect"]
    if not waiting:
        return
    now = after(line, week)
    if answer == "repaired":
        line.repair(week + 1)
        repaired_at = after(line, week) - timedelta(days=3, hours=6)
    for incident in waiting:
        answer_incident(
            context, incident.key, answer=answer, at=repaired_at if answer == "repaired" else None, actor="shift",
            now=now,
        )  # fmt: skip
    story.answered = week


def week_document(report: Any, week: int, *, key: str) -> dict[str, Any]:
    """What happened in one week, as the demo's JSON has it; rows of inspections and of labels are summed."""
    totals = {name: sum(getattr(ingest, name) for ingest in report.ingests) for name in
              ("read", "accepted", "quarantined", "duplicates")}  # fmt: skip
    outcome = next((found for found in reversed(report.outcomes) if found.window == key), None)
    document: dict[str, Any] = {"week": week, "window": key, **totals}
    if outcome is None:
        return {**document, "verdict": None, "alarm": False, "findings": [], "figures": {}}
    figures = outcome.figures
    return {
        **document,
        "verdict": outcome.verdict,
        "alarm": outcome.alarm,
        "findings": [{name: found[name] for name in ("column", "value", "share")} for found in outcome.findings],
        "figures": {name: figures[name]["value"] for name in ("mean", "tail", "stability") if name in figures},
        "accuracy": figures.get("accuracy"),
        "recall": figures.get("recall"),
        "state": outcome.state,
        "statistic": outcome.statistic,
        "threshold": outcome.threshold,
        "labelled": outcome.labelled,
    }


def measure_after(context: Context, story: Story) -> None:
    """For every decision: the tail of both models on the rows of the weeks that follow it."""
    from flows.dataset import labelled_rows
    from softad.figures import cvar

    decided = [entry for entry in story.promotions if entry["champion"] is not None]
    for entry in story.promotions:
        entry["after"] = None
    if not decided:
        return
    rows = labelled_rows(context.store, context.settings, until=None)
    windows = {week["window"]: week["week"] for week in story.weeks}
    weeks = rows["window"].map(windows).fillna(0).to_numpy()
    for entry in decided:
        later = rows[weeks > entry["week"]]
        if later.empty:
            continue
        tails = [
            cvar(context.tracker.load(version).row_losses(later, later["label"].to_numpy()), 0.9)
            for version in (entry["champion"], entry["version"])
        ]
        entry["after"] = {"rows": len(later), "tail_old": float(tails[0]), "tail_new": float(tails[1])}


def _incidents(context: Context) -> list[dict[str, Any]]:
    from flows.incidents import all_incidents

    return [incident.to_dict() for incident in all_incidents(context.store)]


def story_lines(document: dict[str, Any]) -> list[Any]:
    """The story for people: a table of weeks, what was decided, and where the page is."""
    from rich.table import Table

    table = Table("week", "rows", "quarantined", "verdict", "alarm", "named", "mean", "tail", "stability")
    for week in document["weeks"]:
        figures = week["figures"]
        named = ", ".join(f"{found['value']} {found['share']:.0%}" for found in week["findings"][:1])
        numbers = [f"{figures[name]:.3f}" if name in figures else "" for name in ("mean", "tail", "stability")]
        table.add_row(str(week["week"]), str(week["read"]), str(week["quarantined"]), week["verdict"] or "",
                      "alarm" if week["alarm"] else "", named, *numbers)  # fmt: skip
    lines: list[Any] = [table]
    for entry in document["promotions"]:
        verb = "became the champion" if entry["promoted"] else "was refused"
        lines.append(f"week {entry['week']}: version {entry['version']} {verb}: {'; '.join(entry['reasons'][:3])}")
        if entry["after"]:
            old, new = entry["after"]["tail_old"], entry["after"]["tail_new"]
            lines.append(f"  hard cases in the weeks after: {old:.2f} with the old model, {new:.2f} with the new one")
    for incident in document["incidents"]:
        lines.append(f"incident {incident['key']}: {incident['state']}")
    lines.append(f"the page: {document['page']}")
    return lines
