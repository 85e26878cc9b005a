"""The Prefect flow that waits for a person's decision about a challenger."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from flows.approvals import question_of, record_answer
from flows.context import open_context, utc_now


class Answer(RunInput):
    """What the page asks for."""

    name: str = Field(min_length=1, max_length=100, description="Your name; it stands in the ledger.")
    decision: Literal["promote", "refuse"] = Field(description="Put the new model to use, or not.")
    reason: str = Field(default="", max_length=500, description="Why; asked for where it is refused.")


@flow(name="approve", persist_result=False)
def approve_flow(config: str, workspace: str, version: str, decision: str) -> dict[str, Any]:
    """Wait for a person's decision.

    Parameters
    ----------
    config, workspace: paths.
    version: the challenger.
    decision: key of the gates' entry in the ledger.
    """
    context = open_context(Path(config), Path(workspace))
    asked = Answer.with_initial_data(description=question_of(context, version, decision))
    seconds = int(context.settings.promotion.approve_hours * 3600)
    # Prefect takes letters, digits and dashes in the name of an input.
    answer = suspend_flow_run(wait_for_input=asked, timeout=seconds, key=decision.replace(":", "-"))
    return record_answer(
        context, version=version, decision=decision, name=answer.name, promote=answer.decision == "promote",
        reason=answer.reason, now=utc_now(),
    )  # fmt: skip
