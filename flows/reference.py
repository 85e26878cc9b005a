"""The reference of a life: losses of rows that the champion was not fitted, tuned or calibrated on, and these rows."""

from __future__ import annotations

from datetime import datetime

import pandas as pd

from flows.context import Context
from flows.holdout import held_out_rows
from flows.lives import Life, current_life, reference_of
from flows.store import current_rows


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
    after_seq = newest_row(context)
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


def newest_row(context: Context) -> int:
    """The greatest `_seq` so far; -1 where no row has come."""
    newest = context.store.sql("SELECT max(_seq) AS top FROM inspections")["top"].iloc[0]
    return -1 if pd.isna(newest) else int(newest)


def reference_rows(context: Context, life: Life, *, also: tuple[str, ...] = ()) -> pd.DataFrame:
    """The reference of a life with the features and slices of its rows, and the columns named in `also`."""
    # Only the reference's rows are read: all that ever came in are many more.
    mine = f"_id IN (SELECT _id FROM \"references\" WHERE life = '{life.name}')"  # noqa: S608 (a name of our own)
    rows = current_rows(context.store, columns=feature_columns(context, *also), where=mine)
    return reference_of(context.store, life).merge(rows, on="_id", how="left")


def feature_columns(context: Context, *also: str) -> list[str]:
    """`_id`, the columns named in `also`, and the config's features and slices, as far as the table has them.

    Also what the model that is watched takes and the config names no more: it judges by that until another takes over.
    """
    data, present = context.settings.data, set(context.store.columns("inspections").names)
    life, inputs = current_life(context.store), list[str]()
    if life is not None:
        kept = context.tracker.load(life.model_version).preprocessor
        inputs = [*(one.name for one in kept.numeric), *(one.name for one in kept.categorical)]
    names = dict.fromkeys(["_id", *also, *data.numeric, *data.categorical, *data.slices, *inputs])
    return [name for name in names if name in present]
