"""The reference of a new life: losses of rows that the champion was not fitted, tuned or calibrated on."""

from __future__ import annotations

from datetime import datetime

import pandas as pd

from flows.context import Context
from flows.holdout import held_out_rows


def held_out_losses(context: Context, version: str, *, since: datetime | None = None) -> tuple[pd.DataFrame, int]:
    """Losses of a version on the held-out rows, and the last row that it may have seen.

    Parameters
    ----------
    since: only rows inspected from then on, where rows have a time; a model that learned a change is watched against
        the process after the change.

    Returns
    -------
    columns `_id`, `loss`, `window`; and the greatest `_seq` in the tables, so that only later rows are judged.
    """
    from flows.images import image_reader

    settings = context.settings
    newest = context.store.sql("SELECT max(_seq) AS top FROM inspections")["top"].iloc[0]
    after_seq = -1 if pd.isna(newest) else int(newest)
    held = held_out_rows(context.store, context.tracker, settings, [version])
    if since is not None and settings.data.time is not None:
        held = held[held["_time"] >= since]
    bundle = context.tracker.load(version)
    if bundle.classes is not None:
        held = held[held["label"].isin(bundle.classes)]
    if held.empty:
        return pd.DataFrame({"_id": [], "loss": [], "window": []}).astype({"_id": str, "loss": float}), after_seq
    truth = held["label"] if settings.task.kind == "classification" else held["label_value"]
    losses = bundle.row_losses(held, truth.to_numpy(), images=image_reader(context.workspace))
    return held[["_id", "window"]].assign(loss=losses)[["_id", "loss", "window"]].reset_index(drop=True), after_seq
