"""`softad report`: the HTML report of one window, also where it was pruned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.console import DEFAULT_WORKSPACE, ConfigOption, DebugOption, JsonOption, Reply, WorkspaceOption, command


@command
def report(
    window: Annotated[str, typer.Argument(help="The window, such as 2026-W14 (softad status lists them).")],
    to: Annotated[Path | None, typer.Option("--to", help="File to write; by default in the workspace.")] = None,
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """The report of one window as HTML: as it is kept, or built again from the tables with the same verdict."""
    from flows.context import open_context
    from flows.reports import rebuild_report
    from flows.targets import writable_file

    if to is not None:
        writable_file(to, "with --to")
    page = rebuild_report(open_context(config, workspace), window, to=to)
    return Reply(
        {"window": window, "report": str(page), "bytes": page.stat().st_size}, [f"the report of {window}: {page}"]
    )
