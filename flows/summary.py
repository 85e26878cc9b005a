"""What commands print: documents for programs and lines for people, made from what the stages returned."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.context import Context
from monitoring.input_warnings import InputWarnings, input_sentence

SHOWN_VERSIONS = 6
REFERENCE = "for the reference that later windows are compared with"

if TYPE_CHECKING:
    from flows.actions import Action
    from flows.cycle import CycleReport
    from flows.store import Store


def ingest_document(report: Any) -> dict[str, Any]:
    """One file's ingest."""
    return asdict(report)


def cycle_document(report: CycleReport) -> dict[str, Any]:
    """One cycle."""
    return {
        "files": [ingest_document(ingest) for ingest in report.ingests],
        "scored": report.scored,
        "inputs": report.inputs.document(),
        "windows": [asdict(outcome) for outcome in report.outcomes],
        "actions": [action.document() for action in report.actions],
        "notes": report.notes,
        "page": report.page,
        "exit_status": report.status,
    }


def cycle_lines(report: CycleReport) -> list[str]:
    """One cycle, in sentences."""
    lines = []
    for ingest in report.ingests:
        if ingest.status == "accepted":
            lines.append(
                f"{ingest.name}: {ingest.read} rows read = {ingest.accepted} accepted + {ingest.quarantined} "
                f"quarantined + {ingest.duplicates} skipped as known"
            )
    lines.extend(report.notes)
    lines.append(f"{report.scored} rows scored")
    if report.inputs.warned:
        lines.append(input_sentence(report.inputs, "en"))
    for outcome in report.outcomes:
        said = REFERENCE if outcome.state == "reference" else f"verdict {outcome.verdict}"
        lines.append(f"window {outcome.window}: {outcome.labelled} labelled rows, {said}")
    for action in report.actions:
        lines.extend(decision_lines(action))
    lines.append(f"the page: {report.page}")
    return lines


def decision_lines(action: Action) -> list[str]:
    """A retraining or a gate decision, in sentences."""
    if action.kind == "requested":
        return [f"{action.incident}: retraining asked for"]
    if action.kind == "held" and action.training is not None:
        return [f"{action.incident}: version {action.training.version} is trained, and held until the answer"]
    if action.decision is None:
        return []
    decision = action.decision
    waits = "passed every gate and waits" if action.waits else "was refused"
    verb = "is the champion now" if decision.promoted else waits
    return [f"version {decision.version} {verb}", *(f"  {reason}" for reason in decision.reasons)]


def status_document(context: Context) -> dict[str, Any]:
    """What is known now."""
    from flows.incidents import open_incidents
    from flows.lives import current_life
    from flows.monitor import outcomes
    from flows.received import input_warnings

    store = context.store
    files = store.read("files")
    accepted = files[files["status"] == "accepted"]
    totals = {name: int(accepted[name].sum()) for name in ("read", "accepted", "quarantined", "duplicates")}
    life = current_life(store)
    windows = outcomes(context)
    rows = store.sql("SELECT count(DISTINCT _id) AS n FROM inspections")["n"].iloc[0]
    labels = store.sql("SELECT count(DISTINCT _id) AS n FROM labels")["n"].iloc[0]
    ahead = labels_ahead(store)[0]
    # A file that was mended and taken in under its name is held back no more.
    last = files.sort_values("at", kind="stable").drop_duplicates("name", keep="last")
    refused = last[last["status"] == "refused"]
    return {
        "model": context.settings.name,
        "workspace": str(context.workspace.root),
        "rows": int(rows),
        "labels": int(labels),
        "labels_ahead": ahead,
        "files": {"accepted": len(accepted), "refused": refused["name"].tolist(), **totals},
        "champion": context.tracker.champion(),
        "versions": _versions(context),
        "life": {"name": life.name, "model_version": life.model_version, "reason": life.reason} if life else None,
        "inputs": input_warnings(context, life.model_version if life else None).document(),
        "windows": [
            {
                "window": outcome.window, "verdict": outcome.verdict, "state": outcome.state, "alarm": outcome.alarm,
                "labelled": outcome.labelled, "statistic": outcome.statistic, "threshold": outcome.threshold,
                "budget_spent": outcome.budget_spent, "reason": outcome.details.get("reason"),
            }
            for outcome in windows[-8:]
        ],
        "incidents": [incident.to_dict() for incident in open_incidents(store)],
        "page": str(context.workspace.page / "index.html"),
        "tracking_uri": context.tracker.uri,
    }  # fmt: skip


def labels_ahead(store: Store, sha: str | None = None) -> tuple[int, str]:
    """How many parts have a label and have not come in themselves, and the first of their ids.

    Parameters
    ----------
    sha: only labels of this file.
    """
    of_file = f"_file = '{sha}' AND " if sha is not None else ""
    found = store.sql(
        f"SELECT count(DISTINCT _id) AS n, min(_id) AS first FROM labels WHERE {of_file}"  # noqa: S608 (a hash)
        "_id NOT IN (SELECT _id FROM inspections)"
    )
    return int(found["n"].iloc[0]), str(found["first"].iloc[0])


def _reading(window: dict[str, Any]) -> str:
    """Whether a window alarmed, or its reading was above its limit and no alarm was raised."""
    return "alarm" if window["alarm"] else "held back" if window["reason"] == "held_back" else ""


def _versions(context: Context) -> list[dict[str, Any]]:
    """The newest versions, the newest first: what each is now, and why."""
    from flows import ledger
    from flows.promotions import DECIDED, pending, refusal

    entries = ledger.read(context.store)
    decided = {entry.subject: entry for entry in entries if entry.action == DECIDED}
    turned_down = {
        entry.details.get("digest"): entry.subject
        for entry in entries
        if entry.action == DECIDED and not entry.details.get("passed", entry.details["promoted"])
    }
    waiting = pending(entries)
    found = []
    for info in reversed(context.tracker.versions()[-SHOWN_VERSIONS:]):
        entry, refused, because = decided.get(info.version), refusal(entries, info.version), ""
        if info.aliases:
            state = " and ".join(sorted(info.aliases))
        elif waiting is not None and waiting.version == info.version:
            state = "passed every gate, waits"
        elif refused is not None:
            state, because = f"refused by {refused.actor}", str(refused.details.get("reason", ""))
        elif entry is None and info.digest in turned_down:
            state = f"the very model of version {turned_down[info.digest]}, which was refused at the gates"
        elif entry is None:
            held = info.tags.get("held") == "true"
            later = any(int(version) > int(info.version) for version in decided)
            state = (
                "not judged, since a newer one was" if later else "held until the answer" if held else "not judged yet"
            )
        elif entry.details["promoted"]:
            state = "was champion"
        else:
            passed = bool(entry.details.get("passed"))
            state = "passed every gate, was not put to use" if passed else "refused at the gates"
            because = "" if passed else "; ".join(entry.details["reasons"][:1])
        found.append({"version": info.version, "made": info.created, "state": state, "because": because})
    return found


def status_lines(document: dict[str, Any]) -> list[Any]:
    """What is known now, for people."""
    from rich.table import Table

    files = document["files"]
    lines: list[Any] = [
        f"model {document['model']} in {document['workspace']}",
        f"{document['rows']} rows, {document['labels']} labels; {files['read']} rows read = "
        f"{files['accepted']} accepted + {files['quarantined']} quarantined + {files['duplicates']} skipped as known",
        f"champion: version {document['champion']}" if document["champion"] else "no champion yet",
    ]
    for one in document["versions"]:
        because = f": {one['because']}" if one["because"] else ""
        lines.append(f"version {one['version']}, made {one['made']:%Y-%m-%d}: {one['state']}{because}")
    inputs = InputWarnings(**document["inputs"])
    if inputs.rows:
        lines.append(input_sentence(inputs, "en"))
    if document["labels_ahead"]:
        lines.append(f"{document['labels_ahead']:,} of the labels name parts that have not come in")
    if files["refused"]:
        lines.append(f"held back: {', '.join(files['refused'])}")
    if document["windows"]:
        table = Table("window", "labelled", "verdict", "alarm", "statistic", "threshold")
        for window in document["windows"]:
            numbers = [f"{window[name]:.2f}" if window[name] is not None else "" for name in ("statistic", "threshold")]
            verdict = "(reference)" if window["state"] == "reference" else window["verdict"]
            table.add_row(window["window"], str(window["labelled"]), verdict, _reading(window), *numbers)
        lines.append(table)
    for incident in document["incidents"]:
        lines.append(f"open incident {incident['key']}: softad alerts show {incident['key']}")
    lines.append(f"the page: {document['page']}")
    return lines
