"""Commands for auditors: what is behind a prediction, whether the ledger holds, which model was in use when."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.console import DEFAULT_WORKSPACE, ConfigOption, DebugOption, JsonOption, Reply, WorkspaceOption, command

audit_app = typer.Typer(no_args_is_help=True, help="The ledger: whether it was changed, and who was champion when.")


@command
def explain(
    row: Annotated[str, typer.Argument(help="Id of the row.")],
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Everything behind one row's predictions: file, model, training, gates, and who let it."""
    from flows.context import open_context
    from flows.explain import explain as explained
    from flows.explain import lines_of

    document = explained(open_context(config, workspace), row)
    return Reply(document, list(lines_of(document)))


@audit_app.command("verify")
@command
def audit_verify(
    head: Annotated[str | None, typer.Option(help="A head noted at an earlier check; it must still be there.")] = None,
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Whether the ledger is as it was written; status 4 where it is not."""
    return verify_ledger(config, workspace, head=head)


@audit_app.command("as-of")
@command
def audit_as_of(
    date: Annotated[str, typer.Argument(help="Day, or day and time, in the plant's time zone: 2026-03-05[T14:00].")],
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Which model was in use then; of a day, at its end."""
    return champion_as_of(config, workspace, date)


def verify_ledger(config: Path | None, workspace: Path, *, head: str | None) -> Reply:
    """`softad audit verify`."""
    from dataclasses import asdict

    from flows.audit import verify
    from flows.context import open_context

    found = verify(open_context(config, workspace).store, head=head)
    if found.faults:
        lines = [
            *(f"fault: {fault}" for fault in found.faults),
            "the ledger is not as it was written: keep a copy of the tables as they are, then restore a backup",
        ]
        return Reply({**asdict(found), "holds": False}, lines, 4)
    lines = [
        f"the ledger holds: {found.entries} entries in {found.files} files, each as it was written",
        *([f"{found.unchained} entries were written before there was a chain"] if found.unchained else []),
        *([f"{found.unsealed} files have no noted hash yet; the next entry notes it"] if found.unsealed else []),
        f"its head, to be noted elsewhere: {found.head or 'none yet'}",
    ]
    return Reply({**asdict(found), "holds": True}, list(lines))


def champion_as_of(config: Path | None, workspace: Path, date: str) -> Reply:
    """`softad audit as-of DATE`."""
    from dataclasses import asdict
    from datetime import UTC, datetime, timedelta
    from zoneinfo import ZoneInfo

    from flows.audit import champion_at
    from flows.context import open_context
    from flows.errors import BadConfig

    context = open_context(config, workspace)
    zone = ZoneInfo(context.settings.data.time_zone)
    try:
        given = datetime.fromisoformat(date)
    except ValueError as error:
        raise BadConfig(f"{date!r} is no date; write it as 2026-03-05, or with a time as 2026-03-05T14:00") from error
    moment = given if given.tzinfo is not None else given.replace(tzinfo=zone)
    whole_day = len(date.strip()) <= len("2026-03-05")
    if whole_day:
        moment += timedelta(days=1) - timedelta(microseconds=1)
    found = champion_at(context.store, moment.astimezone(UTC))
    when = f"at the end of {date}" if whole_day else f"at {date}"
    if found.version is None:
        first = f"; the first came {found.until.astimezone(zone):%Y-%m-%d %H:%M}" if found.until else ""
        return Reply({"as_of": moment, **asdict(found)}, [f"{when} no model was in use{first}"])
    since = f"{found.since.astimezone(zone):%Y-%m-%d %H:%M}" if found.since else "?"
    until = f"until {found.until.astimezone(zone):%Y-%m-%d %H:%M}" if found.until else "to this day"
    line = f"{when} version {found.version} was in use: since {since}, by {found.actor}, {until} ({found.decision})"
    return Reply({"as_of": moment, **asdict(found)}, [line])
