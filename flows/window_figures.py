"""The figures of one judged window: champion and ERM reference on the same rows, and how far the loss sits in few."""

# Queries hold only our own words and the number of a model version.
# ruff: noqa: S608

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from flows.context import Context
from flows.lives import Life, reference_of

BATCH = 100_000
"""Rows that the reference model judges at a time."""

COMPARED = 20_000
"""Of a larger window so many rows, chosen at random, are resampled to compare champion and reference."""


def window_figures(context: Context, judged: pd.DataFrame, life: Life) -> dict[str, Any]:
    """The three figures of champion and ERM reference on the same rows, and the loss concentration."""
    from softad.figures import loss_concentration, three_figures

    settings = context.settings
    losses = judged["loss"].to_numpy(float)
    reference = reference_of(context.store, life)["loss"].to_numpy(float)
    base = reference if len(reference) else losses
    theta, sigma = float(np.mean(base)), float(np.std(base)) or 1.0
    figures: dict[str, Any] = figures_document(three_figures(losses, seed=settings.monitoring.seed))
    figures["concentration"] = asdict(loss_concentration(losses, theta=theta, sigma=sigma))
    plain = context.tracker.load_reference(life.model_version)
    if plain is not None:
        from flows.images import image_reader

        told = judged if plain.classes is None else judged[judged["label"].isin(plain.classes)]
        truth = told["label"] if settings.task.kind == "classification" else told["label_value"]
        # In parts: a model's copies of many rows' features would take more memory than the rows.
        other = np.concatenate([
            plain.row_losses(told[start : start + BATCH], truth.to_numpy()[start : start + BATCH],
                             images=image_reader(context.workspace))
            for start in range(0, max(len(told), 1), BATCH)
        ])  # fmt: skip
        figures["erm"] = figures_document(three_figures(other, seed=settings.monitoring.seed))
        if len(other) == len(losses):
            figures["bought"] = _bought(other, losses, seed=settings.monitoring.seed)
    if settings.task.kind == "classification":
        wrong = judged["prediction"].astype(str) != judged["label"].astype(str)
        figures["accuracy"] = float(1 - wrong.mean())
        normal = settings.task.normal
        if normal is not None:
            defect = judged["label"].astype(str) != normal
            figures["recall"] = float(1 - wrong[defect].mean()) if defect.any() else None
            figures["false_rejects"] = float(wrong[~defect].mean()) if (~defect).any() else None
    return figures


def _bought(erm: np.ndarray, champion: np.ndarray, *, seed: int) -> dict[str, Any]:
    """What soft ascent-descent changes on the same rows, and on how many of them it was compared."""
    from flows.evaluation import difference

    if len(erm) > COMPARED:
        # A resample of every row of a large window would take longer than judging it.
        chosen = np.random.default_rng(seed).choice(len(erm), COMPARED, replace=False)
        erm, champion = erm[chosen], champion[chosen]
    return {"rows": len(erm), **difference(erm, champion, None, seed=seed)}


def figures_document(figures: Any) -> dict[str, Any]:
    """Mean, tail and stability, each with its interval, as plain numbers."""
    return {name: asdict(getattr(figures, name)) for name in ("mean", "tail", "stability")}


def with_losses(context: Context, rows: pd.DataFrame, version: str) -> pd.DataFrame:
    """`rows` (with `label`) joined with the predictions of one model version; adds `loss` and `prediction`."""
    from monitoring.losses import FLOOR, regression_losses, row_losses

    settings = context.settings
    classify = settings.task.kind == "classification"
    predictions = context.store.arrow(
        f"SELECT _id, _version, prediction, {'probabilities' if classify else 'value'} FROM predictions "
        f"WHERE model_version = '{version}' AND _id IN (SELECT _id FROM wanted) "
        "QUALIFY row_number() OVER (PARTITION BY _id, _version) = 1",
        wanted=rows[["_id"]],
    )
    # The lists of probabilities stay out of the join and of pandas: an object for each row would fill the memory.
    light = predictions.select(["_id", "_version", "prediction", *([] if classify else ["value"])]).to_pandas()
    light["_place"] = np.arange(len(light))
    narrow = rows[["_id", "_version"]].merge(light, on=["_id", "_version"], how="left")
    keep = (narrow["_place"].notna() & ~narrow["_id"].duplicated()).to_numpy()
    # Rows are wide and may be many: they are copied only where some are left out.
    joined = (rows if keep.all() else rows[keep]).reset_index(drop=True)
    told = (narrow if keep.all() else narrow[keep]).reset_index(drop=True)
    joined = joined.assign(**{name: told[name] for name in told.columns if name not in {"_id", "_version", "_place"}})
    places = told["_place"].to_numpy(dtype=np.int64)
    if joined.empty:
        return joined.assign(loss=pd.Series(dtype=float))
    if classify:
        classes = context.tracker.load(version).classes or []
        lists = predictions["probabilities"].combine_chunks()
        table = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), -1)[places]
        # A class that was added after the training got no probability at all: the model is as wrong as can be.
        loss = np.full(len(joined), -np.log(FLOOR))
        known = joined["label"].isin(classes).to_numpy()
        if known.any():
            loss[known] = row_losses(joined.loc[known, "label"].to_numpy(), classes=classes, probabilities=table[known])
    else:
        scale = context.tracker.load(version).target_scale or (0.0, 1.0)
        loss = regression_losses(joined["label_value"].to_numpy(float), joined["value"].to_numpy(float), scale[1])
    return joined.assign(loss=loss)


def figures_by_version(context: Context, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """What the plant was told, split by the model that told it: each part's first prediction counts.

    The figures and the alarm of a window rest on the present champion alone, which scores all of its rows. Where the
    champion changed within the window, the parts of the models before are shown beside, and never mixed with it.

    Returns
    -------
    `version`, `rows`, `mean` and `tail` of each version, the oldest first; empty where one version told all.
    """
    from softad.figures import cvar

    mine = context.store.sql(
        'SELECT p._id, arg_min(p.model_version, p."at") AS told FROM predictions p '
        "JOIN wanted w ON p._id = w._id AND p._version = w._version GROUP BY p._id",
        wanted=rows[["_id", "_version"]],
    )
    versions = sorted(mine["told"].unique(), key=lambda name: (len(str(name)), str(name)))
    found = []
    for version in versions if len(versions) > 1 else []:
        part = rows.merge(mine.loc[mine["told"] == version, ["_id"]], on="_id")
        losses = with_losses(context, part, str(version))["loss"].to_numpy(float)
        if losses.size:
            found.append({
                "version": str(version), "rows": int(losses.size), "mean": float(losses.mean()),
                "tail": cvar(losses, 0.9),
            })  # fmt: skip
    return found
