"""What is measured on held-out rows, and how it is written into a run: figures, concentration, histograms."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from flows.candidates import balanced_accuracy, truth_of
from flows.resampling import relative_changes, resample_weights
from flows.settings import Settings

if TYPE_CHECKING:
    from softad.bundle import ModelBundle

FIGURES = ("mean", "tail", "stability")


def slice_columns(frame: pd.DataFrame, settings: Settings) -> dict[str, np.ndarray]:
    """The slice columns that the rows have, as text; missing values stay missing."""
    present = [name for name in settings.data.slices if name in frame.columns]
    return {name: frame[name].astype("str").to_numpy(dtype=object) for name in present}


def evaluate(
    bundle: ModelBundle,
    frame: pd.DataFrame,
    settings: Settings,
    images: Callable[[str], bytes] | None,
    *,
    scale: tuple[float, float] | None = None,
) -> tuple[dict[str, Any], np.ndarray]:
    """A model's figures on rows that it was not fitted on.

    Parameters
    ----------
    scale: theta and sigma of the concentration's penalty, from a reference; None takes mean and deviation of these
        rows' own losses.

    Returns
    -------
    A document (mean, tail, stability with intervals, before calibration too; concentration; accuracy and recalls, or
    the root of the mean squared error; a histogram of the losses), and the losses, shape (n,).
    """
    from softad.figures import loss_concentration, three_figures

    outputs = bundle.outputs(frame, images)
    truth = truth_of(frame, settings)
    losses = bundle.losses_of(outputs, truth)
    plain = three_figures(replace(bundle, temperature=1.0).losses_of(outputs, truth), resamples=1)
    figures = three_figures(losses, slices=slice_columns(frame, settings))
    document: dict[str, Any] = {name: asdict(getattr(figures, name)) for name in FIGURES}
    document["tail_95"], document["tail_99"], document["rows"] = figures.tail_95, figures.tail_99, figures.rows
    document["worst_slice"] = figures.worst_slice._asdict() if figures.worst_slice is not None else None
    document["uncalibrated"] = {name: getattr(plain, name).value for name in FIGURES}
    theta, sigma = scale or (float(losses.mean()), float(losses.std()) or 1.0)
    document["concentration"] = asdict(loss_concentration(losses, theta=theta, sigma=sigma or 1.0))
    said = bundle.predictions_of(outputs, [])
    if said.labels is not None:
        document |= class_figures(truth.astype(str), said.labels, settings.task.normal)
    elif said.values is not None:
        document["rmse"] = float(np.sqrt(np.mean((said.values - truth) ** 2)))
    document["histogram"] = histogram(losses)
    return document, losses


def class_figures(truth: np.ndarray, said: np.ndarray, normal: str | None) -> dict[str, Any]:
    """Accuracy, balanced accuracy, recall of each class, and the share of good rows that are rejected.

    >>> figures = class_figures(np.array(["ok", "ok", "bad"]), np.array(["ok", "bad", "bad"]), "ok")
    >>> figures["recall"], figures["false_rejects"]
    ({'bad': 1.0, 'ok': 0.5}, 0.5)
    """
    hits = truth == said
    recall = {str(name): float(hits[truth == name].mean()) for name in np.unique(truth)}
    found = {"accuracy": float(hits.mean()), "balanced_accuracy": balanced_accuracy(truth, said), "recall": recall}
    if normal in recall:
        found["false_rejects"] = 1 - recall[normal]
    return found


def histogram(losses: np.ndarray, bins: int = 40) -> dict[str, list[float]]:
    """Counts of the losses in bins that are narrow near zero and widen geometrically.

    >>> counts = histogram(np.array([0.0, 0.1, 5.0]))
    >>> sum(counts["counts"]), len(counts["edges"]) - len(counts["counts"])
    (3, 1)
    """
    top = max(float(losses.max()), 1e-6)
    edges = np.concatenate([[0.0], np.geomspace(top / 1e4, top * (1 + 1e-9), bins)])
    counts, _ = np.histogram(losses, bins=edges)
    return {"edges": [float(edge) for edge in edges], "counts": [int(count) for count in counts]}


def difference(old: np.ndarray, new: np.ndarray, groups: np.ndarray | None, *, seed: int = 0) -> dict[str, Any]:
    """Relative change of mean, tail and stability from `old` to `new`, with 95 % intervals of a paired bootstrap.

    Returns
    -------
    figure -> value, low, high, and whether it is `measurable`, that is, whether the interval leaves out zero.

    >>> losses = np.random.default_rng(0).exponential(size=500)
    >>> difference(losses, losses * 0.8, None)["tail"]["measurable"]
    True
    """
    statistic = relative_changes(old, new)
    drawn = np.vstack([statistic(w) for w in resample_weights(len(old), groups, 1_000, np.random.default_rng(seed))])
    once = statistic(np.ones((1, len(old))))[0]
    document = {}
    for column, name in enumerate(FIGURES):
        low, high = (float(limit) for limit in np.quantile(drawn[:, column], [0.025, 0.975]))
        document[name] = {
            "value": float(once[column]), "low": low, "high": high, "measurable": not low <= 0 <= high,
        }  # fmt: skip
    return document


def as_metrics(document: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The document's numbers under flat names that a tracking server takes, such as "holdout_tail_high".

    >>> as_metrics({"tail": {"value": 2.0, "low": 1.0}, "recall": {"bad, deep": 0.5}, "worst_slice": None}, "holdout")
    {'holdout_tail': 2.0, 'holdout_tail_low': 1.0, 'holdout_recall_bad_ deep': 0.5}
    """
    found: dict[str, float] = {}
    for name, value in document.items():
        if name in {"histogram", "worst_slice"}:
            continue
        key = prefix if name == "value" else f"{prefix}_{re.sub(r'[^0-9A-Za-z_. /-]', '_', str(name))}"
        if isinstance(value, Mapping):
            found |= as_metrics(value, key)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[key] = float(value)
    return found
