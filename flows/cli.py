"""The command `softad`. Libraries are imported where a command needs them, so that `--help` is quick."""

from __future__ import annotations

import gc
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.cli_audit import audit_app, explain
from flows.cli_model import card, export
from flows.cli_operations import backup, doctor, maintain, restore, upgrade
from flows.cli_people import NameOption, alerts_app, config_app
from flows.cli_pilot import pilot
from flows.cli_quarantine import quarantine_app
from flows.cli_report import report
from flows.console import (
    DEFAULT_WORKSPACE,
    Commands,
    ConfigOption,
    DebugOption,
    JsonOption,
    Reply,
    WorkspaceOption,
    command,
    note,
)

app = typer.Typer(
    name="softad",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Retraining of inspection models that keeps normal cases good and makes hard cases better.",
)
app.add_typer(alerts_app, name="alerts")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(config_app, name="config")
app.add_typer(audit_app, name="audit")
app.command("explain")(explain)
app.command("doctor")(doctor)
app.command("maintain")(maintain)
app.command("report")(report)
app.command("backup")(backup)
app.command("restore")(restore)
app.command("upgrade")(upgrade)
app.command("export")(export)
app.command("card")(card)


class Change(StrEnum):
    """What happens to the simulated line."""

    none = "none"
    concentrated = "concentrated"
    spread = "spread"
    mean = "mean"


class Profile(StrEnum):
    """How the services are run."""

    embedded = "embedded"
    production = "production"


class Answer(StrEnum):
    """What a person answers to an incident at one machine."""

    new_normal = "new-normal"
    repaired = "repaired"


@app.command()
@command
def demo(
    weeks: Annotated[int, typer.Option(min=1, max=104, help="Weeks that are judged.")] = 20,
    change: Annotated[Change, typer.Option(help="What happens to the line.")] = Change.concentrated,
    change_week: Annotated[int, typer.Option(min=1, help="Week in which it happens.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another line.")] = 1,
    answer: Annotated[Answer, typer.Option(help="What the shift answers a week after an alarm.")] = Answer.new_normal,
    rows: Annotated[int, typer.Option(min=100, help="Rows a week.")] = 2000,
    config: Annotated[Path | None, typer.Option("--config", help="Run it on the `softad up` of this config.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """A simulated inspection line: weeks of data, a change, an alert, a new model, and the page."""
    from flows.demo import run_demo

    return run_demo(
        workspace, running_config=config, weeks=weeks, change=change.value, change_week=change_week, seed=seed,
        answer=answer.value, rows_per_week=rows, quiet=as_json,
    )  # fmt: skip


@app.command()
@command
def init(
    data: Annotated[Path, typer.Argument(help="CSV or Parquet with inspection rows.")],
    images: Annotated[Path | None, typer.Option(help="Zip or folder with the images that DATA lists.")] = None,
    label: Annotated[str | None, typer.Option(help="Column to predict.")] = None,
    id: Annotated[str | None, typer.Option("--id", help="Column that names a row.")] = None,
    time: Annotated[str | None, typer.Option(help="Column with the time of inspection.")] = None,
    group: Annotated[str | None, typer.Option(help="Rows that share it never part at a split.")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="Column to keep as a feature in spite of a finding.")] = None,
    regression: Annotated[bool, typer.Option("--regression", help="The label is a number to be estimated.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    force: Annotated[bool, typer.Option(help="Replace a config that is there.")] = False,
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Look at the columns and write a config and expectations, to be edited by a person."""
    from flows.propose import beside_others, describe, propose, to_json, write
    from flows.workspace import Workspace

    given = [*(["--config", str(config)] if config else []),
             *(["--workspace", str(workspace)] if workspace != DEFAULT_WORKSPACE else [])]  # fmt: skip
    proposal = propose(
        data, images=images, label=label, id=id, time=time, group=group, keep=tuple(keep or ()),
        regression=regression, name=name, also=tuple(given),
    )  # fmt: skip
    target = config or workspace / "config.yaml"
    proposal = beside_others(proposal, workspace, target, named=name is not None, force=force)
    Workspace.open(workspace, settings=proposal.settings)
    written = write(proposal, target, force=force)
    options = "".join(f" {word}" for word in given)
    lines = [
        *describe(proposal),
        f"wrote {written}; look at it, then: softad ingest {data}{options} && softad run{options}",
    ]
    return Reply({**to_json(proposal), "config": str(written)}, lines)


app.command("pilot")(pilot)


@app.command()
@command
def ingest(
    files: Annotated[list[Path], typer.Argument(help="Inspection or label files.")],
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Take files in: rows are accepted, quarantined with a reason, or skipped as known."""
    from flows.commands import ingest_files

    return ingest_files(config, workspace, files)


@app.command()
@command
def run(
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    now: Annotated[
        datetime | None, typer.Option(help="The present (UTC), such as 2026-03-05T14:00, for replays.")
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """One whole cycle: inbox, validation, scoring, judging, retraining where needed, alerts, page."""
    from flows.commands import run_once

    return run_once(config, workspace, now=now, quiet=as_json)


@app.command()
@command
def status(
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """What is known now: rows, champion, last windows, open incidents."""
    from flows.commands import show_status

    return show_status(config, workspace)


@app.command()
@command
def retrain(
    at: Annotated[str | None, typer.Option("--at", help="Train again on the very rows of this run.")] = None,
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Train a challenger now and bring it before the gates."""
    from flows.commands import retrain_now

    return retrain_now(config, workspace, at_run=at, quiet=as_json)


@app.command()
@command
def promote(
    version: Annotated[
        str | None, typer.Argument(help="Version of the challenger; by default the one that waits, or the newest.")
    ] = None,
    refuse: Annotated[str | None, typer.Option(help="Version that is not to be promoted; with --reason.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why it is refused; it stands in the ledger.")] = None,
    by: NameOption = None,
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Bring a challenger before the gates; it becomes the champion only where all hold. Or refuse it."""
    from flows.commands import promote_version

    return promote_version(config, workspace, version=version, refuse=refuse, reason=reason, by=by)


@app.command()
@command
def rollback(
    of: Annotated[
        str | None, typer.Option("--of", help="Version to leave; where it is not in use, nothing is changed.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; it stands in the ledger.")] = "asked for on the command line",
    by: NameOption = None,
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Put the champion before to use again. Without --of, a second rollback goes forth again."""
    from flows.commands import roll_back

    return roll_back(config, workspace, reason=reason, by=by, of=of)


@app.command()
@command
def up(
    config: Annotated[list[Path] | None, typer.Option("--config", help="Config of a model; may be repeated.")] = None,
    profile: Annotated[Profile | None, typer.Option(help="By default what the config says.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply | None:
    """The whole system on this machine: servers, worker, schedules, triggers, page; Ctrl-C ends it."""
    from flows.commands import bring_up

    return bring_up(config or [], workspace, profile=profile, as_json=as_json, say=note)


@app.command()
@command
def deploy(
    config: Annotated[list[Path] | None, typer.Option("--config", help="Config of a model; may be repeated.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take over deployments of another workspace.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Put the deployments and triggers on a Prefect server that runs already (PREFECT_API_URL)."""
    from flows.commands import deploy_to_server

    return deploy_to_server(config or [], workspace, replace=replace)


def main() -> None:
    """Entry point of the command line."""
    # Imports make many objects that stay; looking for garbage among them time and again is a tenth of a short command.
    gc.set_threshold(50_000, 10, 10)
    app()


if __name__ == "__main__":
    main()
