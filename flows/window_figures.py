"""The figures of one judged window: champion and ERM reference on the same rows, and how far the loss sits in few."""

# Queries hold only our own words and the number of a model version.
# ruff: noqa: S608

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from flows.context import Context
from flows.lives import Life, reference_of
from flows.settings import Settings

if TYPE_CHECKING:
    from monitoring.hard_errors import HardErrors
    from softad.bundle import ModelBundle

BATCH = 100_000
"""Rows that the reference model judges at a time."""

SUSPICION = "_suspicion"
"""Column of a window's rows: the probability that the champion gives to any defect, where a class is the good one."""

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
    figures["lorenz"] = {"before": carried(base), "now": carried(losses)}
    plain, same, answers = context.tracker.load_reference(life.model_version), None, None
    if plain is not None:
        told = judged if plain.classes is None else judged[judged["label"].isin(plain.classes)]
        other, answers = _judged_by(context, plain, told)
        figures["erm"] = figures_document(three_figures(other, seed=settings.monitoring.seed))
        if len(other) == len(losses):
            same = other
            figures["bought"] = _bought(other, losses, seed=settings.monitoring.seed)
    hard = _hard_errors(settings, judged, same, answers)
    if hard is not None:
        figures["hard"] = hard.to_dict()
    if settings.task.kind == "classification":
        wrong = judged["prediction"].astype(str) != judged["label"].astype(str)
        figures["accuracy"] = float(1 - wrong.mean())
        normal = settings.task.normal
        if normal is not None:
            defect = judged["label"].astype(str) != normal
            figures["recall"] = float(1 - wrong[defect].mean()) if defect.any() else None
            figures["false_rejects"] = float(wrong[~defect].mean()) if (~defect).any() else None
    return figures


def carried(losses: np.ndarray) -> list[float]:
    """The share of the loss that the easiest rows carry, at each of `monitoring.page_data.LORENZ_AT`.

    >>> carried(np.array([0.0, 0.0, 0.0, 4.0]))[-3:]
    [0.96, 0.98, 1.0]
    """
    from monitoring.page_data import LORENZ_AT
    from softad.figures import lorenz

    share = lorenz(losses, points=_LORENZ_POINTS)[1]
    return [round(float(share[round(at * (_LORENZ_POINTS - 1))]), 4) for at in LORENZ_AT]


_LORENZ_POINTS = 1001


def _judged_by(context: Context, plain: ModelBundle, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray | None]:
    """Losses of the reference model, and how suspicious it finds each row, or its values."""
    from flows.images import image_reader

    settings = context.settings
    truth = (rows["label"] if plain.classes is not None else rows["label_value"]).to_numpy()
    images = image_reader(context.workspace)
    losses, answers = [], []
    # In parts: a model's copies of many rows' features would take more memory than the rows.
    for start in range(0, max(len(rows), 1), BATCH):
        outputs = plain.outputs(rows[start : start + BATCH], images)
        losses.append(plain.losses_of(outputs, truth[start : start + BATCH]))
        said = plain.predictions_of(outputs, [])
        answers.append(_answers(settings, plain.classes, said.probabilities, said.values))
    parts = [part for part in answers if part is not None]
    return np.concatenate(losses), np.concatenate(parts) if parts else None


def _answers(
    settings: Settings, classes: list[str] | None, probabilities: np.ndarray | None, values: np.ndarray | None
) -> np.ndarray | None:
    """What says whether a model is wrong: how suspicious it finds each row, or its class, or its value."""
    from softad.recall import defect_scores

    if probabilities is None or classes is None:
        return values
    if settings.task.normal is None:
        return np.array([classes[place] for place in probabilities.argmax(axis=1).tolist()])
    if not _tells(settings, classes):
        return None
    return np.asarray(defect_scores(probabilities, classes.index(settings.task.normal)))


def _tells(settings: Settings, classes: list[str]) -> bool:
    return settings.task.normal is not None and settings.task.normal in classes


def _hard_errors(
    settings: Settings, judged: pd.DataFrame, plain_losses: np.ndarray | None, plain_answers: np.ndarray | None
) -> HardErrors | None:
    """Errors on the hard rows; None where nothing says what an error is."""
    from monitoring.hard_errors import hard_errors, wrong_at

    task = settings.task
    said = "value" if task.kind == "regression" else ("prediction" if task.normal is None else SUSPICION)
    own = judged.get(said)
    good = (judged["label"].astype(str) == task.normal).to_numpy() if task.normal is not None else None
    if own is None or (good is not None and not good.any()) or (task.kind == "regression" and task.tolerance is None):
        return None

    def wrong(answers: np.ndarray) -> np.ndarray:
        if task.kind == "regression":
            return np.asarray(np.abs(answers - judged["label_value"].to_numpy(float)) > task.tolerance)
        if good is not None:
            return wrong_at(answers, good, task.false_reject_rate)
        return np.asarray(answers.astype(str) != judged["label"].astype(str).to_numpy())

    plain = None if plain_losses is None or plain_answers is None else wrong(plain_answers)
    rate = task.false_reject_rate if good is not None else None
    return hard_errors(judged["loss"], wrong(own.to_numpy()), plain_losses, plain, rate=rate)


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
    """`rows` (with `label`) joined with one model version's predictions; adds `loss`, `prediction`, and `SUSPICION`."""
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
        if _tells(settings, classes):
            joined = joined.assign(**{SUSPICION: _answers(settings, classes, table, None)})
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
