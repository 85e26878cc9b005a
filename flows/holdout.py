"""The held-out rows on which a challenger meets the champion, and what both say of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from flows.candidates import truth_of
from flows.comparison import Comparison
from flows.dataset import excluded, exclusions, labelled_rows, last_windows
from flows.folds import group_of
from flows.run_files import read_rows
from flows.settings import Settings

if TYPE_CHECKING:
    from flows.store import Store
    from flows.tracking import Tracker
    from softad.bundle import ModelBundle, Predictions


def trained_rows(tracker: Tracker, version: str) -> pd.DataFrame:
    """The labelled rows that a version was made with: `_id`, `_version`, `_seq`, `label`, `window`, `fold`."""
    return read_rows(tracker, tracker.version(version).run_id)


def held_out_rows(store: Store, tracker: Tracker, settings: Settings, versions: list[str]) -> pd.DataFrame:
    """Labelled rows on which these model versions may be compared, in order of arrival.

    Held-out rows of the windows that training reads now, and of the windows of the champion's reference; without rows
    that an incident keeps out, and without any row that one of the versions was fitted, tuned or calibrated on.
    """
    frame = labelled_rows(store, settings)
    windows = {*last_windows(frame, settings.training.history), *_reference_windows(store)}
    keep = (frame["fold"] == "holdout") & frame["window"].isin(windows) & ~excluded(frame, exclusions(store, settings))
    for version in versions:
        rows = trained_rows(tracker, version)
        keep &= ~frame["_id"].isin(rows.loc[rows["fold"] != "holdout", "_id"])
    return frame[keep].reset_index(drop=True)


def _reference_windows(store: Store) -> set[str]:
    from flows.lives import current_life, reference_of

    life = current_life(store)
    return set() if life is None else set(reference_of(store, life)["window"].dropna())


def independent_groups(frame: pd.DataFrame, settings: Settings) -> np.ndarray | None:
    """The group of each row where the config names one: rows of one group are not independent of each other."""
    return None if settings.data.group is None else group_of(frame, settings).to_numpy(dtype=object)


def compare(
    champion: ModelBundle,
    challenger: ModelBundle,
    frame: pd.DataFrame,
    settings: Settings,
    images: Callable[[str], bytes] | None,
) -> tuple[Comparison, int]:
    """What both models say of the rows; and how many rows had to be left out, of classes that one does not know."""
    known = frame
    if settings.task.kind == "classification":
        both = set(champion.classes or []) & set(challenger.classes or [])
        known = frame[frame["label"].isin(both)].reset_index(drop=True)
    truth = truth_of(known, settings)
    outputs = [model.outputs(known, images) for model in (champion, challenger)]
    losses = [model.losses_of(values, truth) for model, values in zip((champion, challenger), outputs, strict=True)]
    said = [model.predictions_of(values, []) for model, values in zip((champion, challenger), outputs, strict=True)]
    protected = settings.promotion.protected or settings.data.slices
    slices = {name: known[name].astype("str").fillna("missing").to_numpy() for name in protected if name in known}
    base = Comparison(losses[0], losses[1], groups=independent_groups(known, settings), slices=slices)
    left_out = len(frame) - len(known)
    if settings.task.kind == "regression":
        errors = [np.abs(_values(one) - truth) for one in said]
        missed = {"champion_errors": errors[0], "challenger_errors": errors[1]}
        return replace(base, **missed, tolerance=settings.task.tolerance), left_out
    classes = tuple(challenger.classes or [])
    probabilities = [
        _aligned(one, model.classes or [], classes) for one, model in zip(said, (champion, challenger), strict=True)
    ]
    return replace(
        base,
        labels=truth.astype(str),
        classes=classes,
        normal=settings.task.normal if settings.task.normal in classes else None,
        champion_probabilities=probabilities[0],
        challenger_probabilities=probabilities[1],
    ), left_out


def constant_losses(tracker: Tracker, version: str, bundle: ModelBundle, frame: pd.DataFrame) -> np.ndarray:
    """Losses of the predictor that knows of the training rows only how frequent each class is, or their mean."""
    if bundle.task == "regression":
        mean, deviation = bundle.target_scale or (0.0, 1.0)
        return np.asarray(((frame["label_value"].to_numpy(dtype=np.float64) - mean) / deviation) ** 2)
    rows = trained_rows(tracker, version)
    counts = rows.loc[rows["fold"] == "train", "label"].astype("str").value_counts()
    classes = bundle.classes or []
    # One more row of each class, so that a class that training did not see has no infinite loss.
    share = {name: (int(counts.get(name, 0)) + 1) / (int(counts.sum()) + len(classes)) for name in classes}
    return np.asarray(-np.log(frame["label"].astype("str").map(share).to_numpy(dtype=np.float64)))


def _values(said: Predictions) -> np.ndarray:
    if said.values is None:
        raise ValueError("a regression model gave no values")
    return said.values


def _aligned(said: Predictions, have: list[str], want: tuple[str, ...]) -> np.ndarray:
    """Probabilities with the columns of `want`; a class that the model does not know has probability 0."""
    if said.probabilities is None:
        raise ValueError("a classification model gave no probabilities")
    columns = np.zeros((len(said.probabilities), len(want)))
    for place, name in enumerate(want):
        if name in have:
            columns[:, place] = said.probabilities[:, have.index(name)]
    return columns
