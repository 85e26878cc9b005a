"""Commands for a model that leaves the system: as a file for other machines, and as a card for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_pilot import Language
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


@command
def card(
    version: VersionArgument = None,
    out: Annotated[Path | None, typer.Option(help="File or folder; by default in the outbox, under models.")] = None,
    language: Annotated[Language | None, typer.Option(help="By default that of the alerts.")] = None,
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Write the card of a model as HTML: what it is for, its data, figures by slice, gates, input contract, limits."""
    from flows.card import card_of, lines_of, write_card
    from flows.context import open_context, utc_now
    from flows.targets import writable_file

    if out is not None and not out.is_dir():
        writable_file(out, "with --out")
    context = open_context(config, workspace)
    document = card_of(context, version, now=utc_now())
    place = out or context.workspace.outbox / "models" / f"{document['model']}-{document['version']}.html"
    file = write_card(document, place, language=language.value if language else context.settings.alerts.language)
    return Reply({"card": file, **document}, lines_of(file, document))
