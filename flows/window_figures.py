"""The figures of one judged window: champion and ERM reference on the same rows, and how far the loss sits in few."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from flows.context import Context
from flows.lives import Life, reference_of


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
        other = plain.row_losses(told, truth.to_numpy(), images=image_reader(context.workspace))
        figures["erm"] = figures_document(three_figures(other, seed=settings.monitoring.seed))
    if settings.task.kind == "classification":
        wrong = judged["prediction"].astype(str) != judged["label"].astype(str)
        figures["accuracy"] = float(1 - wrong.mean())
        normal = settings.task.normal
        if normal is not None:
            defect = judged["label"].astype(str) != normal
            figures["recall"] = float(1 - wrong[defect].mean()) if defect.any() else None
            figures["false_rejects"] = float(wrong[~defect].mean()) if (~defect).any() else None
    return figures


def figures_document(figures: Any) -> dict[str, Any]:
    """Mean, tail and stability, each with its interval, as plain numbers."""
    return {name: asdict(getattr(figures, name)) for name in ("mean", "tail", "stability")}
