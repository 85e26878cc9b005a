"""Commands for quarantined rows: list, export, release after repair or as they are, discard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_people import NameOption
from flows.console import DEFAULT_WORKSPACE, ConfigOption, DebugOption, JsonOption, Reply, WorkspaceOption, command

if TYPE_CHECKING:
    from flows.quarantine import HeldRow

quarantine_app = typer.Typer(no_args_is_help=True, help="Rows that were not accepted: list, export, release, discard.")

KeysArgument = Annotated[list[str] | None, typer.Argument(help="Keys of rows, as the list shows them.")]
RuleOption = Annotated[str | None, typer.Option("--rule", help="All held rows that only this rule speaks against.")]


@quarantine_app.command("list")
@command
def quarantine_list(
    limit: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="Released and discarded ones too.")] = False,
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Quarantined rows with file, row, column, value and reason."""
    from rich.table import Column, Table

    from flows.context import open_context
    from flows.quarantine import all_rows

    every = all_rows(open_context(config, workspace).store)
    rows = every if everything else [row for row in every if row.state == "held"]
    table = Table(Column("key", no_wrap=True), "file", "row", "id", "column", "value", "reason", "state")
    for row in rows[:limit]:
        first = row.reasons[0] if row.reasons else {}
        state = row.state if row.by is None else f"{row.state} by {row.by}: {row.note}"
        told = (first.get("column") or "", first.get("value"), first.get("message") or first.get("rule") or "")
        table.add_row(row.key, row.name, str(row.row), row.id or "", *map(str, told), state)
    gone = len(every) - sum(row.state == "held" for row in every)
    word = "rows" if everything else "rows held"
    lines: list[Any] = [table, f"{len(rows)} {word}, {min(limit, len(rows))} shown"] if rows else ["nothing is held"]
    if gone and not everything:
        lines.append(f"{gone} more were released or discarded: --all")
    return Reply({"total": len(rows), "rows": [_document(row) for row in rows[:limit]]}, lines)


@quarantine_app.command("export")
@command
def quarantine_export(
    file: Annotated[Path, typer.Argument(help="CSV to write, for a spreadsheet.")],
    labels: Annotated[bool, typer.Option("--labels", help="Rows of label files, not of inspections.")] = False,
    rule: RuleOption = None,
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Write the held rows to a CSV, to be repaired and released."""
    from flows.context import open_context
    from flows.errors import BadConfig
    from flows.quarantine import all_rows, chosen
    from flows.quarantine_files import exported
    from flows.targets import writable_file
    from flows.workspace import write_atomically

    writable_file(file, "as FILE")
    if file.exists() and not force:
        raise BadConfig(f"{file} is there already; name another file, or say --force")
    every = all_rows(open_context(config, workspace).store)
    picked = chosen(every, [], rule=rule) if rule else [row for row in every if row.state == "held"]
    wanted = "labels" if labels else "inspections"
    rows = [row for row in picked if row.delivered == wanted]
    other = len(picked) - len(rows)
    lines = [f"wrote {len(rows)} rows to {file}; mend them, then: softad quarantine release {file}"]
    if other:
        lines.append(f"{other} more come from {'inspections: without --labels' if labels else 'label files: --labels'}")
    if rows:
        write_atomically(file, exported(rows))
    else:
        lines[0] = "nothing is held, so nothing was written"
    return Reply({"file": str(file) if rows else None, "rows": len(rows), "others": other}, lines)


@quarantine_app.command("release")
@command
def quarantine_release(
    what: Annotated[
        list[str] | None, typer.Argument(help="A repaired file; or keys of rows, with --unchanged.")
    ] = None,
    unchanged: Annotated[bool, typer.Option("--unchanged", help="Take the rows in as they are.")] = False,
    rule: RuleOption = None,
    reason: Annotated[str | None, typer.Option(help="Why; it stands in the ledger.")] = None,
    by: NameOption = None,
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Take rows in after repair (a file), or as they are (keys, with a reason)."""
    from flows.commands import acting, stated
    from flows.context import open_context, utc_now
    from flows.errors import BadConfig
    from flows.quarantine import all_rows, chosen
    from flows.quarantine_files import release_repaired, release_unchanged

    context, now = open_context(config, workspace), utc_now()
    who, named = acting(by)
    with context.workspace.lock("quarantine"):
        if unchanged:
            said = stated(reason, "the rows are taken in as they are")
            rows = chosen(all_rows(context.store), what or [], rule=rule)
            done = release_unchanged(context, rows, actor=who, reason=said, named=named, now=now)
        else:
            if len(what or []) != 1 or rule is not None:
                raise BadConfig("name one repaired file; to take rows in as they are, name their keys and --unchanged")
            done = release_repaired(
                context, Path((what or [""])[0]), actor=who, reason=" ".join((reason or "").split()),
                named=named, now=now,
            )  # fmt: skip
    report = done.report
    lines = [f"{done.rows} rows released" + (f"; {done.already} had been released before" if done.already else "")]
    if report is not None and report.status == "accepted":
        lines.append(
            f"{report.name}: {report.read} rows read = {report.accepted} accepted + {report.quarantined} quarantined "
            f"+ {report.duplicates} skipped as known"
        )
    return Reply({"released": done.rows, "already": done.already, "file": report.name if report else None}, lines)


@quarantine_app.command("discard")
@command
def quarantine_discard(
    keys: KeysArgument = None,
    rule: RuleOption = None,
    reason: Annotated[str | None, typer.Option(help="Why; it stands in the ledger.")] = None,
    by: NameOption = None,
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Leave rows out for good; they stay in the table, with who said so and why."""
    from flows.commands import acting, stated
    from flows.context import open_context, utc_now
    from flows.errors import BadConfig
    from flows.quarantine import DISCARDED, all_rows, chosen, let_go

    context, said = open_context(config, workspace), stated(reason, "the rows are discarded")
    who, named = acting(by)
    with context.workspace.lock("quarantine"):
        rows = chosen(all_rows(context.store), keys or [], rule=rule)
        released = next((row for row in rows if row.state == "released"), None)
        if released is not None:
            raise BadConfig(f"{released.key} was released by {released.by} ({released.note}) and is taken in already")
        done = let_go(context.store, rows, action=DISCARDED, actor=who, reason=said, now=utc_now(),
                      details={"named": named})  # fmt: skip
    already = len(rows) - done
    lines = [f"{done} rows discarded" + (f"; {already} had been discarded before" if already else "")]
    return Reply({"discarded": done, "already": already}, lines)


def _document(row: HeldRow) -> dict[str, Any]:
    return {
        "key": row.key, "file": row.name, "row": row.row, "id": row.id, "kind": row.kind, "reasons": row.reasons,
        "state": row.state, "by": row.by, "note": row.note, "at": row.at,
    }  # fmt: skip
