"""Commands for those who run the installation: is it well, keep it, bring it back, move it forward, tidy it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.console import DEFAULT_WORKSPACE, ConfigOption, DebugOption, JsonOption, Reply, WorkspaceOption, command

WaitOption = Annotated[float, typer.Option(min=0, help="Seconds to wait for what runs in the workspace.")]
_MARKS = {"good": "good", "note": "note", "act": "ACT "}


@command
def doctor(
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Is everything as it must be? Each finding with what to do; status 4 where something must be done."""
    from dataclasses import asdict

    from flows.context import utc_now
    from flows.doctor import diagnose

    found = diagnose(config, workspace, now=utc_now())
    healthy = all(one.state != "act" for one in found)
    lines = [f"{_MARKS[one.state]}  {one.name:<11} {one.sentence}" for one in found]
    return Reply({"healthy": healthy, "checks": [asdict(one) for one in found]}, lines, 0 if healthy else 4)


@command
def maintain(
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Remove old files that the config's `retention` lets go, and join small files of tables. No row goes."""
    from dataclasses import asdict

    from flows.context import open_context, utc_now
    from flows.maintenance import maintain as tidy

    done = tidy(open_context(config, workspace), now=utc_now())
    line = (
        f"removed {done.predictions} files of predictions, {done.reports} HTML reports, {done.logs} logs, "
        f"{done.table_files} files of tables that nothing needs, {done.left_over} half-written files"
    )
    return Reply(asdict(done), [line])


@command
def backup(
    to: Annotated[Path | None, typer.Option("--to", help="FILE.tar.zst or FILE.tar.gz, outside the workspace.")] = None,
    config: Annotated[list[Path] | None, typer.Option("--config", help="Config elsewhere; may be repeated.")] = None,
    wait: WaitOption = 900.0,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Keep the whole workspace in one file, consistent and read again; passwords are not in it."""
    from dataclasses import asdict

    from flows.backup import back_up
    from flows.context import utc_now

    done = back_up(workspace, to, now=utc_now(), configs=config or [], wait=wait)
    size = done.path.stat().st_size
    lines = [f"{done.path}: {done.files} files, {size / 1e6:.1f} MB, read again and whole", *done.notes]
    return Reply({**asdict(done), "bytes": size}, list(lines))


@command
def restore(
    file: Annotated[Path, typer.Argument(help="What `softad backup` wrote.")],
    replace: Annotated[bool, typer.Option("--replace", help="Put aside a workspace that is there.")] = False,
    wait: WaitOption = 900.0,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Put the workspace of a backup in place, whole or not at all."""
    from dataclasses import asdict

    from flows.backup import bring_back
    from flows.context import utc_now
    from flows.targets import writable_folder

    writable_folder(workspace, "with --workspace")
    _refuse_while_up(workspace, "restore")
    done = bring_back(file, workspace, now=utc_now(), replace=replace, wait=wait)
    lines = [
        f"{workspace.absolute()}: {done.files} files as they were at {done.at}; now: softad doctor",
        *([f"what was there lies in {done.set_aside} now"] if done.set_aside else []),
        *done.notes,
    ]
    return Reply(asdict(done), list(lines))


@command
def upgrade(
    to: Annotated[Path | None, typer.Option("--to", help="Where the backup goes; by default beside it.")] = None,
    wait: WaitOption = 900.0,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Bring a workspace of an earlier version forward, after a backup; `softad restore` of it goes back."""
    from dataclasses import asdict

    from flows.context import utc_now
    from flows.upgrade import upgrade as bring_forward

    _refuse_while_up(workspace, "upgrade")
    done = bring_forward(workspace, now=utc_now(), to=to, wait=wait)
    if done.backup is None:
        return Reply(asdict(done), [f"the workspace has format {done.after} already; nothing to do"])
    line = f"the workspace went from format {done.before} to {done.after}"
    return Reply(asdict(done), [line, f"to go back: softad restore {done.backup.path} --replace"])


def _refuse_while_up(workspace: Path, what: str) -> None:
    from flows.errors import Refused
    from flows.up import running

    if running(workspace) is not None:
        raise Refused(f"`softad up` runs in {workspace}; end it first (Ctrl-C there), then {what}")
