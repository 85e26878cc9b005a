"""Everything behind one prediction: the row, its file, the model, what that was trained on, and who let it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from flows import ledger
from flows.errors import BadConfig
from flows.promote import DECIDED, MOVED
from flows.trainings import training_of

if TYPE_CHECKING:
    import pandas as pd

    from flows.context import Context


def explain(context: Context, row: str) -> dict[str, Any]:
    """What is known of one row's predictions, as a document.

    Returns
    -------
    "row", then "inspections" (each version of the row, with its file), "labels", "predictions" (oldest first), and
    "models": version -> run, data versions, digests, gates and the people or rules behind it.

    Raises
    ------
    BadConfig: no row has this id.
    """
    store = context.store
    where = "_id = '" + row.replace("'", "''") + "'"
    inspections = store.read("inspections", where=where, order="_version")
    if inspections.empty:
        raise BadConfig(
            f"no inspection has the id {row!r}; ids are those of the column that data.id names "
            "(`softad quarantine list` shows rows that were not accepted)"
        )
    predictions = store.read("predictions", where=where, order='"at", model_version')
    labels = store.read("labels", where=where, order="_version")
    files = _files(context, {*inspections["_file"], *labels["_file"].dropna()})
    models = [str(version) for version in dict.fromkeys(predictions["model_version"])]
    return {
        "row": row,
        "inspections": [
            {"version": one["_version"], "file": files.get(one["_file"]), "line": one["_row"], "taken_in": one["_at"]}
            for one in _records(inspections)
        ],
        "labels": [
            {
                "label": one["label"] if one["label"] is not None else one["label_value"],
                "by": one["inspector"],
                "at": one["_time"],
                "file": files.get(one["_file"]),
            }
            for one in _records(labels)
        ],
        "predictions": [_prediction(one) for one in _records(predictions)],
        "models": {version: model_behind(context, version) for version in models},
    }


def model_behind(context: Context, version: str) -> dict[str, Any]:
    """Where a model version comes from, and how it came into use.

    Raises
    ------
    BadConfig: the version is not registered.
    """
    info = context.tracker.version(version)
    run = context.tracker.run(info.run_id)
    training = training_of(context.tracker, run)
    entries = ledger.read(context.store)
    decided = [entry for entry in entries if entry.action == DECIDED and entry.subject == version]
    return {
        "run": info.run_id,
        "registered": info.created,
        "digest": info.digest,
        "reason": training.reason,
        "rows": training.rows,
        "tables": training.versions,
        "config_digest": run.params.get("config.digest"),
        "code": {name: value for name, value in run.params.items() if name.startswith("code.")},
        "gates": [
            {
                "at": entry.at,
                "promoted": entry.details["promoted"],
                "passed": entry.details.get("passed", entry.details["promoted"]),
                "by": entry.actor,
                "gates": [
                    {"name": gate["name"], "passed": gate["passed"], "reason": gate["reason"]}
                    for gate in entry.details["gates"]
                ],
            }
            for entry in decided
        ],
        "in_use": [
            {"since": entry.at, "by": entry.actor, "decision": entry.details["decision"]}
            for entry in entries
            if entry.action == MOVED and entry.subject == version
        ],
    }


def lines_of(document: dict[str, Any]) -> list[str]:
    """The document as lines for people."""
    lines = [f"row {document['row']}"]
    for one in document["inspections"]:
        correction = f" (correction {one['version'] - 1})" if one["version"] > 1 else ""
        lines.append(f"  came in {_text(one['taken_in'])} from line {one['line']} of {_file(one['file'])}{correction}")
    for one in document["labels"]:
        lines.append(f"  labelled {one['label']} {_text(one['at'])} by {one['by'] or 'a file'}: {_file(one['file'])}")
    if not document["labels"]:
        lines.append("  no label so far")
    for one in document["predictions"]:
        sure = "" if one["probability"] is None else f" ({one['probability']:.1%})"
        warned = f"; inputs: {one['warnings']}" if one["warnings"] else ""
        lines.append(f"  judged {one['answer']}{sure} by version {one['model']} {_text(one['at'])}{warned}")
    if not document["predictions"]:
        lines.append("  not judged by any model so far")
    for version, model in document["models"].items():
        lines += _model_lines(version, model)
    return lines


def _model_lines(version: str, model: dict[str, Any]) -> list[str]:
    rows = ", ".join(f"{count} {part}" for part, count in model["rows"].items())
    tables = ", ".join(f"{table} {number}" for table, number in sorted(model["tables"].items()))
    code = model["code"]
    lines = [
        f"version {version}: trained by run {model['run']} ({model['reason']})",
        f"  rows: {rows}; tables: {tables}",
        f"  config {model['config_digest']}; code {code.get('code.digest')} (commit {code.get('code.commit')}); "
        f"weights {model['digest'][:16]}",
    ]
    for decision in model["gates"]:
        held = sum(gate["passed"] for gate in decision["gates"])
        said = "promoted" if decision["promoted"] else "passed" if decision["passed"] else "refused"
        count = len(decision["gates"])
        lines.append(f"  {said} {_text(decision['at'])} by {decision['by']}: {held} of {count} gates held")
        lines += [f"    {'held' if gate['passed'] else 'FAILED'}: {gate['reason']}" for gate in decision["gates"]]
    lines += [f"  in use since {_text(one['since'])}, by {one['by']}" for one in model["in_use"]]
    return lines


def _files(context: Context, shas: set[str]) -> dict[str, dict[str, Any]]:
    frame = context.store.read("files", columns=["sha", "name", "at"], where="status = 'accepted'", order='"at"')
    found = frame[frame["sha"].isin(shas)]
    return {one["sha"]: {"name": one["name"], "sha256": one["sha"], "at": one["at"]} for one in _records(found)}


def _prediction(record: dict[str, Any]) -> dict[str, Any]:
    probabilities = record["probabilities"]
    return {
        "model": str(record["model_version"]),
        "row_version": record["_version"],
        "answer": record["prediction"] if record["prediction"] is not None else record["value"],
        "probability": None if probabilities is None else float(max(probabilities)),
        "warnings": record["warnings"] or "",
        "at": record["at"],
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows with None for what is missing, and Python's own numbers and times."""
    import pandas as pd

    def own(value: Any) -> Any:
        if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
            return None
        if isinstance(value, pd.Timestamp):
            return value.to_pydatetime()
        return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value

    return [{str(name): own(value) for name, value in record.items()} for record in frame.to_dict("records")]


def _file(found: dict[str, Any] | None) -> str:
    return "a file that is not known" if found is None else f"{found['name']} (sha256 {found['sha256'][:16]}…)"


def _text(moment: datetime | None) -> str:
    return "at an unknown time" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"
