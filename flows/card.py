"""The card of a model version: what it is for, on what it was trained, how it does, by slice, and where it ends.

What was recorded at the training and in the ledger is read back; figures by slice, costs and the export are measured
again on the rows that the training held out. Nothing is decided or changed here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from flows import ledger
from flows.card_page import render_card
from flows.cost_gates import megabytes, row_milliseconds
from flows.dataset import labelled_rows
from flows.errors import BadConfig, PipelineError, Unavailable
from flows.evaluation import slice_columns
from flows.export import CHECKED_ROWS, export_agrees
from flows.holdout import trained_rows
from flows.images import images_of
from flows.lineage import settings_as_recorded
from flows.promotions import APPROVED, DECIDED, MOVED, ROLLED_BACK
from flows.run_files import LINEAGE, SETTINGS, read_document
from flows.trainings import training_of
from flows.workspace import write_atomically
from monitoring.words import LANGUAGES
from softad.contract import contract_of

if TYPE_CHECKING:
    from flows.context import Context
    from flows.settings import Settings
    from flows.trainings import Training
    from softad.bundle import ModelBundle

FEWEST = 30
"""A slice with fewer held-out rows gets no figure: it would be chance."""
SHOWN_FILES = 20
"""So many of the files that the training rows came from are listed, those of most rows; the rest are counted."""


def card_of(context: Context, version: str | None = None, *, now: datetime) -> dict[str, Any]:
    """Everything that the card says of a version, by default the champion, as a document.

    Parameters
    ----------
    now: when it is written.

    Raises
    ------
    BadConfig: there is no champion yet, or no such version.
    Refused: the model's files are not those that were registered.
    """
    tracker = context.tracker
    version = version or tracker.champion()
    if version is None:
        raise BadConfig(f"{context.settings.name} has no champion yet; name the version: softad card VERSION")
    info = tracker.version(version)
    run = tracker.run(info.run_id)
    training = training_of(tracker, run)
    settings = read_document(
        tracker, info.run_id, f"{LINEAGE}/{SETTINGS}", lambda recorded: settings_as_recorded(context.settings, recorded)
    )
    bundle, reference = tracker.load(version), tracker.load_reference(version)
    rows = _rows(context, settings, training, version)
    held = rows[rows["fold"] == "holdout"].reset_index(drop=True)
    images = images_of(settings, context.workspace)
    entries = ledger.read(context.store)
    return {
        "model": settings.name,
        "version": version,
        "written_at": now,
        "state": next((name for name in ("champion", "previous") if name in info.aliases), "challenger"),
        "registered_at": info.created,
        "digest": info.digest,
        "task": {
            "kind": settings.task.kind, "label": settings.data.label, "classes": bundle.classes,
            "normal": settings.task.normal, "tolerance": settings.task.tolerance,
        },
        "in_use": _in_use(entries, version),
        "training": {
            "run": info.run_id, "reason": training.reason, "incident": training.incident, "seconds": training.seconds,
            "started_at": run.started, "config_digest": run.params.get("config.digest"),
            "code": {name: value for name, value in run.params.items() if name.startswith("code.")},
        },
        "data": _data(context, training, rows, run.params),
        "objective": _objective(training, bundle),
        "settings": settings.training.model_dump(mode="json"),
        "figures": {
            "model": training.figures["soft"]["holdout"], "reference": training.figures["erm"]["holdout"],
            "change": training.figures["difference"],
        },
        "slices": slice_figures(bundle, reference, held, settings, images),
        "fewest_rows": FEWEST,
        "gates": _gates(entries, version),
        "contract": contract_of(bundle.preprocessor),
        "costs": _costs(bundle, held, images),
        "export": _export(bundle, held, images),
    }  # fmt: skip


def write_card(document: dict[str, Any], to: Path, *, language: str) -> Path:
    """Write the card as one HTML file that needs no network; `to` is the file, or a folder for it.

    Parameters
    ----------
    document: of `card_of`.
    language: "en" or "ja".
    """
    file = to / f"{document['model']}-{document['version']}.html" if to.is_dir() else to
    write_atomically(file, render_card(document, language))
    return file


def card_beside_page(context: Context, version: str | None, *, now: datetime) -> str | None:
    """Write the card of the version in use beside the page, in every language, and among the artifacts of its run.

    Once for each version.

    Returns
    -------
    The files' name before `.LANGUAGE.html`; None where there is none, or it cannot be made now: the page is written all
    the same.
    """
    if version is None:
        return None
    name = f"card-{version}"
    files = {language: context.workspace.page / f"{name}.{language}.html" for language in LANGUAGES}
    if all(file.exists() for file in files.values()):
        return name
    try:
        document = card_of(context, version, now=now)
        with tempfile.TemporaryDirectory() as folder:
            for language in LANGUAGES:
                write_card(document, Path(folder) / f"{name}.{language}.html", language=language)
            context.tracker.log_files(document["training"]["run"], Path(folder), "card")
        for language, file in files.items():  # last: what died before is done again
            write_card(document, file, language=language)
    except PipelineError:
        return None
    return name


def slice_figures(
    bundle: ModelBundle,
    reference: ModelBundle | None,
    held: pd.DataFrame,
    settings: Settings,
    images: Callable[[str], bytes] | None = None,
) -> list[dict[str, Any]]:
    """Mean and tail of a model on the held-out rows of every slice, and the reference's mean beside them.

    Returns
    -------
    column, value, rows, and mean with its interval of 95 %, tail, reference; None where fewer than `FEWEST` rows speak.
    Columns in the config's order, within them the largest slice first.

    >>> from softad.bundle import train_bundle
    >>> from flows.settings import Settings
    >>> frame = pd.DataFrame({"x": [0.0, 1.0] * 30, "label": ["ok", "bad"] * 30, "machine": ["M1"] * 40 + ["M2"] * 20})
    >>> bundle, _ = train_bundle(frame, frame["label"], frame, frame["label"], task="classification",
    ...     classes=["ok", "bad"], numeric=["x"], categorical=[], model="linear", epochs=2)
    >>> settings = Settings.model_validate({"name": "a", "task": {"classes": ["ok", "bad"]},
    ...     "data": {"label": "label", "numeric": ["x"], "slices": ["machine"], "window": {"rows": 100}}})
    >>> [(one["value"], one["rows"], one["mean"] is None) for one in slice_figures(bundle, bundle, frame, settings)]
    [('M1', 40, False), ('M2', 20, True)]
    """
    from flows.candidates import truth_of
    from softad.figures import cvar

    if bundle.classes is not None:
        held = held[held["label"].isin(bundle.classes)].reset_index(drop=True)
    if held.empty:
        return []
    truth = truth_of(held, settings)
    losses = bundle.row_losses(held, truth, images)
    plain = None if reference is None else reference.row_losses(held, truth, images)
    found = []
    for column, values in slice_columns(held, settings).items():
        texts = pd.Series(values)
        for value, rows in texts.value_counts().items():
            mask = (texts == value).to_numpy(dtype=bool)
            own = losses[mask]
            enough = rows >= FEWEST
            room = 1.96 * float(own.std(ddof=1)) / np.sqrt(len(own)) if enough else 0.0
            found.append({
                "column": column, "value": str(value), "rows": int(rows),
                "mean": float(own.mean()) if enough else None,
                "low": max(float(own.mean()) - room, 0.0) if enough else None,
                "high": float(own.mean()) + room if enough else None,
                "tail": cvar(own, 0.9) if enough else None,
                "reference": float(plain[mask].mean()) if enough and plain is not None else None,
            })  # fmt: skip
    return found


def lines_of(file: Path, document: dict[str, Any]) -> list[str]:
    """In sentences, for the command line.

    >>> lines_of(Path("card.html"), {"version": "3", "state": "champion"})
    ['the card of version 3 (champion): card.html']
    """
    return [f"the card of version {document['version']} ({document['state']}): {file}"]


def _rows(context: Context, settings: Settings, training: Training, version: str) -> pd.DataFrame:
    """The rows that a training read, with their part of the split; without those that the tables have lost."""
    pinned = {
        table: number
        for table, number in training.versions.items()
        if table in {"inspections", "labels"} and context.store.readable(table, number)
    }
    frame = labelled_rows(context.store, settings, versions=pinned).drop(columns=["fold", "window"])
    kept = trained_rows(context.tracker, version)[["_id", "_version", "window", "fold"]]
    return frame.merge(kept, on=["_id", "_version"], how="inner")


def _in_use(entries: Sequence[ledger.Entry], version: str) -> list[dict[str, Any]]:
    """Every time that the version was put to use, by which decision, and who let it."""
    keyed = {entry.key: entry for entry in entries}
    approved = {entry.details["decision"]: entry for entry in entries if entry.action == APPROVED}
    found = []
    for entry in entries:
        if entry.action != MOVED or entry.subject != version:
            continue
        key = entry.details["decision"]
        decision, person = keyed.get(key), approved.get(key)
        back = decision is not None and decision.action == ROLLED_BACK
        by = person.actor if person is not None else decision.actor if decision is not None else entry.actor
        found.append({
            "since": entry.at, "by": by, "how": "rollback" if back else "approved" if person else "gates",
            "instead_of": entry.details.get("from"),
        })  # fmt: skip
    return found


def _gates(entries: Sequence[ledger.Entry], version: str) -> dict[str, Any] | None:
    """What the gates last said of the version; None where they were never asked."""
    entry = next((one for one in reversed(entries) if one.action == DECIDED and one.subject == version), None)
    if entry is None:
        return None
    details = entry.details
    passed = details.get("passed", details["promoted"])
    return {"at": entry.at, "passed": passed, "champion": details["from"], "rows": details.get("rows", 0),
            "gates": details["gates"], "reasons": details["reasons"]}  # fmt: skip


def _data(context: Context, training: Training, rows: pd.DataFrame, params: dict[str, str]) -> dict[str, Any]:
    names = context.store.read("files", columns=["sha", "name"], where="status = 'accepted'")
    called = dict(zip(names["sha"], names["name"], strict=True))
    counts = rows["_file"].value_counts()
    times = rows["_time"].dropna()
    return {
        "rows": training.rows,
        "windows": {
            "first": params.get("history.first"), "last": params.get("history.last"),
            "count": params.get("history.windows"),
        },
        "from": times.min().to_pydatetime() if len(times) else None,
        "to": times.max().to_pydatetime() if len(times) else None,
        "labels": {str(name): int(count) for name, count in rows["label"].value_counts().items()},
        "files": [
            {"name": called.get(sha, str(sha)[:16]), "sha256": str(sha), "rows": int(count)}
            for sha, count in counts.head(SHOWN_FILES).items()
        ],
        "further_files": max(0, len(counts) - SHOWN_FILES),
        "tables": training.versions,
        "exclusions": json.loads(params.get("excluded.rules", "[]")),
    }  # fmt: skip


def _objective(training: Training, bundle: ModelBundle) -> dict[str, Any]:
    """The objective that was chosen: `kind` is plain | level | other."""
    name = training.chosen_because.partition(":")[0]
    kind = "plain" if name == "erm" else "level" if name.startswith("theta") else "other"
    return {"kind": kind, "name": name, "theta": training.theta, "sigma": bundle.metadata.get("sigma"),
            "because": training.chosen_because}  # fmt: skip


def _costs(bundle: ModelBundle, held: pd.DataFrame, images: Callable[[str], bytes] | None) -> dict[str, Any]:
    return {
        "row_ms": row_milliseconds(bundle, held.iloc[:1], images) if len(held) else None,
        "size_mb": megabytes(bundle),
        "parameters": sum(int(one.numel()) for one in bundle.model.parameters()),
    }


def _export(bundle: ModelBundle, held: pd.DataFrame, images: Callable[[str], bytes] | None) -> dict[str, Any]:
    """How far the exported model is from the trained one; `agrees` is None where it could not be tried."""
    try:
        found = export_agrees(bundle, held.head(CHECKED_ROWS), images)
    except Unavailable as error:
        return {"agrees": None, "rows": 0, "difference": None, "reason": str(error)}
    return {
        "agrees": found.agrees if found.rows else None, "rows": found.rows, "difference": found.difference,
        "tolerance": found.tolerance, "bytes": None if found.content is None else len(found.content),
        "row_ms": None if found.seconds_one_row is None else 1000 * found.seconds_one_row, "reason": found.reason,
    }  # fmt: skip
