"""Commands for people: incidents, the config."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from flows.console import DEFAULT_WORKSPACE, ConfigOption, DebugOption, JsonOption, Reply, WorkspaceOption, command

alerts_app = typer.Typer(
    no_args_is_help=True, help="Incidents: list, show, acknowledge, close; renew the watch; test the channels."
)
config_app = typer.Typer(no_args_is_help=True, help="Check or change the config.")

NameOption = Annotated[str | None, typer.Option("--by", help="Who does it; it stands in the ledger.")]


@alerts_app.command("list")
@command
def alerts_list(
    everything: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Incidents that are open."""
    from flows.people import list_incidents

    return list_incidents(config, workspace, everything=everything)


@alerts_app.command("show")
@command
def alerts_show(
    key: str,
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """One incident, in words."""
    from flows.people import show_incident

    return show_incident(config, workspace, key)


@alerts_app.command("ack")
@command
def alerts_ack(
    key: str,
    repaired: Annotated[bool, typer.Option("--repaired", help="The machine is as it was before.")] = False,
    new_normal: Annotated[bool, typer.Option("--new-normal", help="The machine stays as it is now.")] = False,
    seen: Annotated[bool, typer.Option("--seen", help="Somebody looks into it; the answer comes later.")] = False,
    at: Annotated[datetime | None, typer.Option(help="When it was repaired (UTC), such as 2026-03-05T14:00.")] = None,
    by: NameOption = None,
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Answer an incident: repaired, or the new normal."""
    from flows.people import acknowledge

    return acknowledge(config, workspace, key, repaired=repaired, new_normal=new_normal, at=at, by=by, seen=seen)


@alerts_app.command("close")
@command
def alerts_close(
    key: str,
    reason: Annotated[str, typer.Option(help="Why; it stands in the ledger.")] = "closed by hand",
    by: NameOption = None,
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Close an incident; watching begins anew with the same champion."""
    from flows.people import close_incident

    return close_incident(config, workspace, key, reason=reason, by=by)


@alerts_app.command("renew")
@command
def alerts_renew(
    reason: Annotated[str, typer.Option(help="Why; it stands in the ledger.")] = "the line is as it should be",
    by: NameOption = None,
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Begin a new watch of the model in use, after one that ended without an alarm."""
    from flows.people import renew_watch

    return renew_watch(config, workspace, reason=reason, by=by)


@alerts_app.command("test")
@command
def alerts_test(
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Send a test message through every channel."""
    from flows.people import test_channels

    return test_channels(config, workspace)


@config_app.command("check")
@command
def config_check(
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Read the config and say whether it holds."""
    from flows.people import check_config

    return check_config(config, workspace)


@config_app.command("add-class")
@command
def config_add_class(
    name: str,
    by: NameOption = None,
    config: ConfigOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Add a class that was never seen before, and release the labels that waited for it."""
    from flows.people import add_class

    return add_class(config, workspace, name, by=by)
