"""Early signs of windows whose labels have not come yet: recorded once, and compared with the truth on the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from flows.context import Context
from flows.dataset import window_complete, window_of
from flows.images import images_of
from flows.lives import Life
from flows.reference import reference_rows
from flows.store import current_rows

SAMPLE_ROWS = 5_000
"""Most rows of window and reference that are compared: more would find nothing that matters."""


@dataclass(frozen=True)
class EarlySign:
    """What was told of one window before its labels; a record of the table `early_warnings`.

    Attributes
    ----------
    rows, labelled: rows of the window then, and how many of them had a label already.
    warns: a sign showed.
    predicted_loss, reference_loss: means of the losses that the model itself expected of window and reference.
    signs: those that showed, as `monitoring.early_warning.Sign` holds them.
    """

    life: str
    window: str
    rows: int
    labelled: int
    model_version: str
    warns: bool
    predicted_loss: float | None
    reference_loss: float | None
    signs: list[dict[str, Any]]
    at: datetime


def look_early(context: Context, life: Life, *, now: datetime) -> list[EarlySign]:
    """Look at every window of a life that is complete and was neither looked at nor judged; labels are not read.

    Nothing is looked at as long as the life's reference is short: there is nothing to compare with.
    """
    if life.scan is None:
        return []
    settings, store = context.settings, context.store
    light = current_rows(store, columns=["_id", "_seq", "_time", "_at"], where=f"_seq > {life.after_seq}")
    if light.empty:
        return []
    known = set(store.read("early_warnings", columns=["window"], where=f"life = '{life.name}'")["window"])
    judged = store.read("windows", columns=["window", "state"], where=f"life = '{life.name}'")
    known |= set(judged.loc[judged["state"] != "too_few_labels", "window"])
    light = light.assign(_window=window_of(light, settings))
    newest = int(light["_seq"].max())
    reference: pd.DataFrame | None = None
    found = []
    for key, part in light.groupby("_window", sort=True):
        window = str(key)
        if window in known or len(part) < settings.monitoring.min_window_rows:
            continue
        if not window_complete(window, settings, newest=newest, now=now):
            continue
        if reference is None:
            reference = _reference_rows(context, life)
        labelled = int(store.sql("SELECT count(DISTINCT l._id) AS n FROM labels l JOIN part p ON l._id = p._id",
                                 part=part[["_id"]])["n"].iloc[0])  # fmt: skip
        sign = _look(context, life, window, part, reference, labelled, now)
        if _record(context, sign):
            found.append(sign)
    return found


def early_signs(context: Context) -> list[EarlySign]:
    """All that were recorded, in their order."""
    frame = context.store.read("early_warnings", order='"at", "window"')
    found = []
    for row in frame.to_dict("records"):
        values: dict[str, Any] = {name: row[name] for name in EarlySign.__dataclass_fields__}
        for name in ("predicted_loss", "reference_loss"):
            values[name] = None if pd.isna(row[name]) else float(row[name])
        values |= {"signs": json.loads(row["signs"]), "warns": bool(row["warns"]), "at": row["at"].to_pydatetime()}
        found.append(EarlySign(**values))
    return found


def _look(
    context: Context, life: Life, window: str, part: pd.DataFrame, reference: pd.DataFrame, labelled: int, now: datetime
) -> EarlySign:
    from monitoring.early_warning import expected_by_value, expected_loss, warn_early

    settings = context.settings
    seed = settings.monitoring.seed
    rows = _rows_of(context, _sampled(part["_seq"].to_numpy(), seed))
    bundle = context.tracker.load(life.model_version)
    images = images_of(settings, context.workspace)
    here, there = (bundle.predict(frame, images) for frame in (rows, reference))
    confidence: tuple[Any, Any] | None = None
    if here.probabilities is not None and there.probabilities is not None:
        predicted = expected_loss(here.probabilities), expected_loss(there.probabilities)
        confidence = here.probabilities.max(axis=1), there.probabilities.max(axis=1)
    else:
        now_values, values, losses = (
            np.asarray(here.values),
            np.asarray(there.values),
            reference["_loss"].to_numpy(float),
        )
        predicted = expected_by_value(now_values, values, losses), expected_by_value(values, values, losses)
    warning = warn_early(
        rows, reference, numeric=settings.data.numeric, categorical=settings.data.categorical, predicted=predicted,
        confidence=confidence,
    )  # fmt: skip
    return EarlySign(
        life.name, window, len(part), labelled, life.model_version, warning.warns, warning.predicted_loss,
        warning.reference_loss, [asdict(sign) for sign in warning.signs if sign.shown], now,
    )  # fmt: skip


def _reference_rows(context: Context, life: Life) -> pd.DataFrame:
    """A sample of the reference's rows with their features, in order of arrival, and `_loss`."""
    rows = (
        reference_rows(context, life, also=("_seq", "_image")).dropna(subset="_seq").rename(columns={"loss": "_loss"})
    )
    chosen = _sampled(rows["_seq"].to_numpy(dtype=np.int64), context.settings.monitoring.seed)
    return rows[rows["_seq"].isin(chosen)].sort_values("_seq", ignore_index=True)


def _rows_of(context: Context, numbers: Sequence[int]) -> pd.DataFrame:
    # A window is nearly always all there is between its first and its last row; a long list is slow to read.
    first, last = numbers[0], numbers[-1]
    whole = last - first + 1 == len(numbers)
    where = f"_seq BETWEEN {first} AND {last}" if whole else f"_seq IN ({', '.join(map(str, numbers))})"
    return current_rows(context.store, where=where)


def _sampled(numbers: np.ndarray, seed: int) -> list[int]:
    if len(numbers) > SAMPLE_ROWS:
        numbers = np.random.default_rng(seed).choice(np.sort(numbers), SAMPLE_ROWS, replace=False)
    return [int(number) for number in np.sort(numbers)]


def _record(context: Context, sign: EarlySign) -> bool:
    record = asdict(sign) | {"signs": json.dumps(sign.signs, ensure_ascii=False)}
    return context.store.append("early_warnings", pd.DataFrame([record]), key=f"{sign.life}:{sign.window}")
