"""Commands for a model that leaves the system: as a file for other machines, and as a card for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.console import DEFAULT_WORKSPACE, ConfigOption, DebugOption, JsonOption, Reply, WorkspaceOption, command

VersionArgument = Annotated[str | None, typer.Argument(help="Version of the model; by default the champion.")]


@command
def export(
    version: VersionArgument = None,
    to: Annotated[Path | None, typer.Option(help="File or folder; by default in the outbox, under models.")] = None,
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Write a model as an ONNX file, from raw columns to calibrated answers; only where both answer the same."""
    from flows.context import open_context
    from flows.export import export_version, lines_of

    found = export_version(open_context(config, workspace), version, to)
    return Reply(found.document(), lines_of(found))
