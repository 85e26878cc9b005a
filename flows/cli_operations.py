"""Commands for those who run the installation: is it well, keep it, bring it back, move it forward, tidy it."""

from __future__ import annotations

from flows.console import DEFAULT_WORKSPACE, ConfigOption, DebugOption, JsonOption, Reply, WorkspaceOption, command

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
