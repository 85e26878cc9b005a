"""A person's decision about a challenger, given on Prefect's own page: a flow run that waits for it.

The run does not hold a process while it waits: it is suspended, and a worker takes it up again with the answer. The
name in the answer is believed: whoever may open the page may decide.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from flows import ledger
from flows.errors import BadConfig
from flows.promotions import Pending, pending

if TYPE_CHECKING:
    from flows.context import Context

APPROVE_TAG = "softad-approve"
"""On the deployment whose runs wait for a decision."""


def ask_on_page(context: Context, waiting: Pending) -> tuple[str | None, str]:
    """Start the run that waits for the decision, once; without a server the command line is the only way.

    Returns
    -------
    The run's page, or None, and why there is none.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import PREFECT_UI_URL

    from flows.embedded import lasting_server

    address = lasting_server()
    if address is None:
        return None, "no Prefect server is set, so it cannot be decided on its page: only by this command"
    settings = context.settings
    name = f"approve/{settings.name}"
    try:
        with get_client(sync_client=True) as client:
            run = client.create_flow_run_from_deployment(
                client.read_deployment_by_name(name).id,
                name=f"{settings.name}-version-{waiting.version}",
                parameters={
                    "config": str(settings.source), "workspace": str(context.workspace.root),
                    "version": waiting.version, "decision": waiting.key,
                },
                idempotency_key=f"softad-{settings.name}-{waiting.key}",
            )  # fmt: skip
    except ObjectNotFound:
        return None, f"the Prefect server has no deployment {name}: lay it down with `softad deploy`"
    except httpx.HTTPError:
        return None, "the Prefect server does not answer, so it cannot be decided on its page now"
    page = PREFECT_UI_URL.value() or address.removesuffix("/api")
    return f"{page.rstrip('/')}/runs/flow-run/{run.id}", ""


def question_of(context: Context, version: str, decision: str) -> str:
    """What the page shows beside the blanks: what the gates found, in Markdown."""
    entry = ledger.find(context.store, decision)
    if entry is None:
        raise BadConfig(f"the ledger has no decision {decision!r}; the run was started for another workspace")
    found = "\n".join(f"- {reason}" for reason in entry.details["reasons"])
    return (
        f"Version **{version}** of **{context.settings.name}** passed every gate on {entry.at:%Y-%m-%d %H:%M} UTC, "
        f"against version {entry.details['from'] or 'none'}.\n\n{found}\n\nThe name that you give stands in the ledger."
    )


def record_answer(
    context: Context, *, version: str, decision: str, name: str, promote: bool, reason: str, now: datetime
) -> dict[str, Any]:
    """Do what the person decided; nothing where the challenger does not wait for this decision any more."""
    from flows.promote import refuse
    from flows.respond import consider_version

    waiting = pending(ledger.read(context.store))
    who = " ".join(name.split())
    done: dict[str, Any] = {"version": version, "by": who, "promoted": False, "refused": False}
    if waiting is None or (waiting.key, waiting.version) != (decision, version):
        return done | {"note": f"version {version} does not wait for this decision any more; nothing was done"}
    if promote:
        action = consider_version(context, version, actor=who, now=now, by_person=True, named="declared")
        return done | {"promoted": action.promoted}
    why = " ".join(reason.split()) or "no reason given"
    with context.workspace.lock("promotion"):
        refuse(context.store, context.tracker, version=version, actor=who, reason=why, now=now, named="declared")
    return done | {"refused": True, "reason": why}
