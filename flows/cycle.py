"""One whole cycle, from the inbox to the page: plain functions, and the Prefect flow that is a shell over them.

Every step reads its work from the tables, so a cycle that was killed anywhere is finished by the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.context import Context, open_context, utc_now
from monitoring.input_warnings import InputWarnings


@dataclass
class CycleReport:
    """What one cycle did.

    Attributes
    ----------
    ingests: one report a file.
    outcomes: the windows that were judged.
    actions: retrainings and gate decisions, or requests for them.
    notes: sentences for a person (why nothing could be trained, which file was held back).
    inputs: what was unusual about the rows that were scored, by column.
    status: 0, or the exit status of the gravest thing that happened (3: a file was refused).
    """

    ingests: list[Any] = field(default_factory=list)
    outcomes: list[Any] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    scored: int = 0
    inputs: InputWarnings = field(default_factory=InputWarnings)
    delivered: int = 0
    page: str | None = None
    status: int = 0


PROGRESS: ContextVar[Callable[[str], None] | None] = ContextVar("progress", default=None)
"""Who is told what a cycle does, where a person waits for it."""

MANY_FILES = 60
"""A table of more files is joined into fewer; every cycle adds a few."""

STEPS: tuple[tuple[str, str], ...] = (
    ("ingest", "taking in files"),
    ("train_first", "looking for a champion"),
    ("score", "scoring"),
    ("monitor", "judging windows"),
    ("watch", "comparing new models with those before"),
    ("respond", "answering incidents"),
    ("deliver", "delivering alerts"),
    ("page", "writing the page"),
    ("compact", "joining small files"),
)
"""The steps of a cycle in their order, each with the words that a person sees while it runs."""


def take_in(context: Context, report: CycleReport, now: datetime) -> None:
    """Step `ingest`: files of the inbox to the tables; a file that is held back raises one alert."""
    from flows.alerting import alert_refused_file
    from flows.ingest import ingest_inbox

    report.ingests = ingest_inbox(context.settings, context.store, context.workspace, now=now)
    for ingest in report.ingests:
        report.notes.extend(ingest.sentences)
        if ingest.status == "refused":
            report.status = 3
            alert_refused_file(context, ingest, now=now)


def train_first(context: Context, report: CycleReport, now: datetime) -> None:
    """Step `train_first`: where there is no champion yet, train one as soon as there are rows enough."""
    from flows.respond import ensure_champion

    actions, notes = ensure_champion(context, now=now)
    report.actions.extend(actions)
    report.notes.extend(notes)
    if notes and not actions:
        report.status = max(report.status, 3)


def score(context: Context, report: CycleReport, now: datetime) -> None:
    """Step `score`: the champion's predictions, to the table and the outbox."""
    from flows.score import score_rows

    done = score_rows(context.store, context.tracker, context.settings, context.workspace, now=now)
    report.scored, report.inputs = done.rows, done.inputs


def monitor(context: Context, report: CycleReport, now: datetime) -> None:
    """Step `monitor`: the windows that are due."""
    from flows.monitor import close_windows

    report.outcomes = close_windows(context, now=now)


def watch(context: Context, report: CycleReport, now: datetime) -> None:
    """Step `watch`: challengers and new champions beside the models before; promotions that wait for a person."""
    from flows.promotion_watch import watch_promotions

    report.notes.extend(watch_promotions(context, now=now))


def respond(context: Context, report: CycleReport, now: datetime, *, trigger: str) -> None:
    """Step `respond`: incidents are opened and followed, people are told, and what incidents ask for is done."""
    from flows.following import follow_incidents
    from flows.respond import answer_incidents

    follow_incidents(context, now=now)
    # People hear of it before a training of minutes or hours begins.
    deliver(context, report)
    actions, notes = answer_incidents(context, now=now, trigger=trigger)
    report.actions.extend(actions)
    report.notes.extend(notes)


def deliver(context: Context, report: CycleReport) -> None:
    """Step `deliver`: alerts from the outbox through the channels."""
    from flows.alerting import deliver_alerts

    report.delivered += deliver_alerts(context)


def page(context: Context, report: CycleReport, now: datetime) -> None:
    """Step `page`."""
    from flows.page import refresh_page

    report.page = str(refresh_page(context, now=now))


def compact(context: Context) -> None:
    """Step `compact`: small files are joined; a version that a model's lineage names stays readable."""
    if context.store.fragments() < MANY_FILES:
        return
    from flows.retrain import kept_versions

    context.store.compact(kept_versions(context.tracker))


def run_steps(
    context: Context,
    *,
    now: datetime,
    trigger: str = "inline",
    progress: Callable[[str], None] | None = None,
    call: Callable[[str, Callable[[], None]], None] | None = None,
) -> CycleReport:
    """All steps in order, under the model's lock.

    Parameters
    ----------
    trigger: "inline" trains within the cycle; "event" emits an event for Prefect's automation instead.
    progress: told what is being done.
    call: how a step is run, given its name and a function; the flow runs each as a Prefect task.

    Raises
    ------
    Refused: another cycle of this model is running.
    """
    report = CycleReport()
    steps: dict[str, Callable[[], None]] = {
        "ingest": lambda: take_in(context, report, now),
        "train_first": lambda: train_first(context, report, now),
        "score": lambda: score(context, report, now),
        "monitor": lambda: monitor(context, report, now),
        "watch": lambda: watch(context, report, now),
        "respond": lambda: respond(context, report, now, trigger=trigger),
        "deliver": lambda: deliver(context, report),
        "page": lambda: page(context, report, now),
        "compact": lambda: compact(context),
    }
    from flows.observation import observed
    from flows.troubles import note_success, told_when_it_fails

    with context.workspace.lock("cycle", wait=False), observed(context, report):
        for name, words in STEPS:
            if progress is not None:
                progress(words)
            with told_when_it_fails(context, "cycle", name, now=now):
                if call is None:
                    steps[name]()
                else:
                    call(name, steps[name])
        if note_success(context, "cycle", now=now):
            deliver(context, report)
    return report


@task(cache_policy=NO_CACHE, persist_result=False)
def _step(function: Callable[[], None]) -> None:
    function()


def _as_task(name: str, function: Callable[[], None]) -> None:
    _step.with_options(name=name)(function)


@flow(name="cycle", persist_result=False)
def cycle_flow(config: str | None, workspace: str, trigger: str = "inline", now: str | None = None) -> CycleReport:
    """One cycle as a Prefect flow.

    Parameters
    ----------
    config, workspace: paths; no config means `config.yaml` in the workspace.
    trigger: "inline" or "event" (see `run_steps`).
    now: ISO time to take as the present, for replays.
    """
    moment = datetime.fromisoformat(now) if now else utc_now()
    context = open_context(Path(config) if config else None, Path(workspace))
    return run_steps(context, now=moment, trigger=trigger, progress=PROGRESS.get(), call=_as_task)
