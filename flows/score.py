"""Scoring: the champion's predictions for rows that have none yet, into the table and out to the plant's systems."""

# Queries hold only our own words and texts whose quotes are doubled.
# ruff: noqa: S608

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from flows.dataset import window_of
from flows.errors import BadInput
from flows.images import images_of
from flows.settings import Settings
from flows.store import current_rows
from flows.workspace import Workspace, shortened, write_atomically
from monitoring.input_warnings import InputWarnings, count_warnings

if TYPE_CHECKING:
    from flows.store import Store
    from flows.tracking import Tracker
    from softad.bundle import ModelBundle

BATCH = 100_000
"""Rows scored, and appended, at a time."""


@dataclass(frozen=True)
class ScoreReport:
    """What one scoring did.

    Attributes
    ----------
    rows: rows that got a prediction now.
    version: the model version that gave them; None where there is no champion yet.
    files: names of the files written for the plant's systems.
    warned: rows whose inputs are unusual.
    inputs: the same by column.
    """

    rows: int
    version: str | None
    files: tuple[str, ...] = ()
    warned: int = 0
    inputs: InputWarnings = field(default_factory=InputWarnings)


def score_rows(
    store: Store,
    tracker: Tracker,
    settings: Settings,
    workspace: Workspace,
    *,
    now: datetime,
    windows: Iterable[str] | None = None,
    ids: Iterable[str] | None = None,
    version: str | None = None,
) -> ScoreReport:
    """Score rows that lack a prediction; each row and model version gets one, however often this is called.

    Parameters
    ----------
    windows, ids: only rows of these; they lack a prediction if this model version gave none. Without either: rows
        that no model has scored yet, and rows that arrived in the life of the present champion and that it has not
        scored.
    version: the model version; the champion when not given.

    Notes
    -----
    A file goes to the outbox when its rows are scored for the first time, before the table knows it: a crash in
    between writes the same file again, and never leaves one out.

    Raises
    ------
    Refused: the model's files are not those that were registered.
    BadInput: an image is not there any more, or the rows break the model's input contract: a column is missing, or
        holds words where the model takes numbers.
    Unavailable: the tracking server is away, or the disk is full.
    """
    from softad.contract import breaches

    version = version or tracker.champion()
    if version is None:
        return ScoreReport(0, None)
    rows = _unscored(store, settings, version, windows, ids)
    if rows.empty:
        return ScoreReport(0, version)
    bundle = tracker.load(version)
    broken = breaches(bundle.preprocessor, rows)
    if broken:
        raise BadInput(
            f"{len(rows)} rows cannot be scored by version {version}: {broken[0]}; bring the column back under its "
            "name and type of the training, or train a model without it"
        )
    images = images_of(settings, workspace)
    files: dict[str, None] = {}
    unusual: Counter[str] = Counter()
    for part in _batches(rows):
        predictions = _predict(bundle, part, images, version, now)
        unusual.update(predictions["warnings"])
        for sha in part.loc[~part["_seen"].to_numpy(dtype=bool), "_file"].unique():
            files[_deliver(store, settings, workspace, str(sha), predictions)] = None
        store.append("predictions", predictions.drop(columns=["_file", "_row"]), key=_key(version, part))
    kept = bundle.preprocessor
    columns = [*(one.name for one in kept.numeric), *(one.name for one in kept.categorical)]
    inputs = count_warnings(unusual.items(), columns, rows=len(rows))
    return ScoreReport(len(rows), version, tuple(files), inputs.warned, inputs)


def _unscored(
    store: Store, settings: Settings, version: str, windows: Iterable[str] | None, ids: Iterable[str] | None
) -> pd.DataFrame:
    """Rows to score in order of arrival, with `_seen`: whether any model has scored them before."""
    known = store.sql(
        f"SELECT _id, _version, bool_or(model_version = {_text(version)}) AS _mine FROM predictions GROUP BY ALL"
    )
    light = current_rows(store, columns=["_id", "_version", "_seq", "_time", "_at"])
    light = light.merge(known, on=["_id", "_version"], how="left")
    seen = light["_mine"].notna().to_numpy()
    lacking = ~light["_mine"].astype("boolean").fillna(False).to_numpy(dtype=bool)
    if windows is not None:
        lacking &= window_of(light, settings).isin(list(windows)).to_numpy()
    if ids is not None:
        lacking &= light["_id"].isin(list(ids)).to_numpy()
    if windows is None and ids is None:
        lacking &= ~seen | (light["_seq"] > _champion_since(store, version)).to_numpy()
    wanted = light.assign(_seen=seen)[lacking]
    if wanted.empty:
        return wanted
    rows = current_rows(store, where=f"_seq BETWEEN {wanted['_seq'].min()} AND {wanted['_seq'].max()}")
    return rows.merge(wanted[["_id", "_version", "_seen"]], on=["_id", "_version"], how="inner")


def _champion_since(store: Store, version: str) -> float:
    """The last row that had arrived when the version's life began; infinite where it has none."""
    from flows.lives import current_life

    life = current_life(store)
    return float("inf") if life is None or life.model_version != version else float(life.after_seq)


def _batches(rows: pd.DataFrame) -> Iterable[pd.DataFrame]:
    """Whole files together, so that a file is delivered once; about `BATCH` rows each."""
    gathered: list[pd.DataFrame] = []
    for _, part in rows.groupby("_file", sort=False):
        gathered.append(part)
        if sum(len(one) for one in gathered) >= BATCH:
            yield pd.concat(gathered)
            gathered = []
    if gathered:
        yield pd.concat(gathered)


def _predict(
    bundle: ModelBundle, rows: pd.DataFrame, images: Callable[[str], bytes] | None, version: str, now: datetime
) -> pd.DataFrame:
    said = bundle.predict(rows, images)
    frame = pd.DataFrame({
        "_id": rows["_id"].to_numpy(), "_version": rows["_version"].to_numpy(), "model_version": version,
        "warnings": said.warnings, "at": now, "_file": rows["_file"].to_numpy(), "_row": rows["_row"].to_numpy(),
    })  # fmt: skip
    if said.labels is not None and said.probabilities is not None:
        frame["prediction"] = said.labels
        frame["probabilities"] = list(said.probabilities.astype(np.float32))
    elif said.values is not None:
        frame["prediction"] = [repr(float(value)) for value in said.values]
        frame["value"] = said.values
    return frame


def _key(version: str, rows: pd.DataFrame) -> str:
    """Names a write by the model version and the very rows."""
    which = rows[["_id", "_version"]].astype("str")
    digest = hashlib.sha256(pd.util.hash_pandas_object(which, index=False).to_numpy().tobytes()).hexdigest()[:16]
    return f"score:{version}:{int(rows['_seq'].min())}-{int(rows['_seq'].max())}:{digest}"


def _deliver(store: Store, settings: Settings, workspace: Workspace, sha: str, fresh: pd.DataFrame) -> str:
    """Write the predictions of one input file, all of its rows, and return the file's name."""
    columns = ["_id", "_version", "prediction", "probabilities", "value", "model_version", "warnings", "at"]
    earlier = store.sql(
        'SELECT p._id, p._version, p.prediction, p.probabilities, p.value, p.model_version, p.warnings, p."at", i._row '
        "FROM predictions p JOIN inspections i ON p._id = i._id AND p._version = i._version "
        f'WHERE i._file = {_text(sha)} ORDER BY p."at", try_cast(p.model_version AS BIGINT)'
    )
    mine = fresh[fresh["_file"] == sha]
    frame = mine.reindex(columns=[*columns, "_row"])
    if len(earlier):
        frame = pd.concat([earlier, frame]).drop_duplicates(["_id", "_version"], keep="last")
    frame = frame.sort_values("_row", kind="stable")
    table = pd.DataFrame({
        "id": frame["_id"], "prediction": frame["prediction"],
        "probability": [_highest(value) for value in frame["probabilities"]],
        "model_version": frame["model_version"], "warnings": frame["warnings"],
    })  # fmt: skip
    if settings.task.kind == "regression":
        table = table.drop(columns="probability")
    buffer = io.StringIO()
    table.to_csv(buffer, index=False, lineterminator="\n")
    name = _outbox_name(store, sha)
    write_atomically(workspace.outbox / "predictions" / name, buffer.getvalue())
    return name


def _highest(probabilities: object) -> str:
    if not isinstance(probabilities, (list, np.ndarray)):
        return ""
    return f"{float(np.max(probabilities)):.6g}"


def _outbox_name(store: Store, sha: str) -> str:
    """The input file's name as .csv; a later file of the same name carries its digest, so that none is overwritten.

    A plant that exports `today.csv` every day finds `today.csv`, then `today-1f3a9c20.csv`, and so on.
    """
    files = store.sql(
        'SELECT sha, min(name) AS name, min("at") AS first FROM files '
        "WHERE kind = 'inspections' AND status = 'accepted' GROUP BY sha ORDER BY first, sha"
    )
    stems = {str(key): _stem(str(name)) for key, name in zip(files["sha"], files["name"], strict=True)}
    stem = stems.get(sha, sha[:16])
    first = next((key for key, other in stems.items() if other == stem), sha)
    return f"{stem}.csv" if first == sha else f"{stem}-{sha[:8]}.csv"


def _stem(name: str) -> str:
    """
    >>> [_stem(name) for name in ("a.csv", "b.csv.gz", "2026.04.parquet", "plain")]
    ['a', 'b', '2026.04', 'plain']
    """
    for ending in (".gz", ".csv", ".tsv", ".txt", ".parquet"):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    # File systems allow 255 bytes, to which a digest and an ending come.
    return shortened(name, 200) or "predictions"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
