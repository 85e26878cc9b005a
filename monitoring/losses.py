"""From predictions and labels to one loss a row, without the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

FLOOR = 1e-7
"""Smallest probability that a loss is computed from: a float32 probability of exactly 0 says no more than that."""


def row_losses(labels: ArrayLike, *, classes: Sequence[str], probabilities: ArrayLike, floor: float = FLOOR) -> Floats:
    """The log loss of each row: -log of the probability that was given to the true class.

    Parameters
    ----------
    labels: (n,) true classes, as text.
    classes: the k classes in the order of the columns of `probabilities`.
    probabilities: (n, k), each row from 0 to 1 and summing to 1.
    floor: smallest probability that is believed, so that a loss is at most -log(floor), about 16.

    Returns
    -------
    (n,) losses of at least 0.

    Raises
    ------
    ValueError: shapes that do not fit, a label that is no class, a row that is no probability; the row is named.

    >>> row_losses(["ok", "scratch"], classes=["ok", "scratch"], probabilities=[[0.5, 0.5], [1.0, 0.0]]).round(3)
    array([ 0.693, 16.118])
    """
    if not 0 < floor < 1:
        raise ValueError(f"floor is {floor}; it is a probability above 0 and below 1")
    names = np.array([str(each) for each in np.asarray(labels, dtype=object)], dtype=object)
    table = (
        np.asarray(probabilities, dtype=np.float64).reshape(-1, len(classes))
        if not names.size
        else np.asarray(probabilities, dtype=np.float64)
    )
    if table.shape != (names.size, len(classes)):
        raise ValueError(f"probabilities have shape {table.shape}; they must be ({names.size}, {len(classes)})")
    bad = np.flatnonzero(~(((table >= 0) & (table <= 1 + 1e-4)).all(axis=1) & (np.abs(table.sum(axis=1) - 1) < 1e-3)))
    if bad.size:
        raise ValueError(f"probabilities: row {bad[0] + 1} is {table[bad[0]].tolist()}; it must sum to 1")
    place = {str(name): number for number, name in enumerate(classes)}
    columns = np.array([place.get(name, -1) for name in names], dtype=np.int64)
    unknown = np.flatnonzero(columns < 0)
    if unknown.size:
        raise ValueError(f"labels: row {unknown[0] + 1} is {names[unknown[0]]!r}; known are {', '.join(place)}")
    chosen = table[np.arange(names.size), columns]
    return np.asarray(-np.log(np.clip(chosen, floor, 1.0)) + 0.0, dtype=np.float64)


def regression_losses(labels: ArrayLike, values: ArrayLike, scale: float) -> Floats:
    """The squared error of each row, in units of the target's spread: ((label - value) / scale)^2.

    Parameters
    ----------
    labels: (n,) true values.
    values: (n,) predicted values.
    scale: standard deviation of the target in training, above 0.

    Raises
    ------
    ValueError: shapes that do not fit, a number that is not finite, a scale that is not above 0.

    >>> regression_losses([10.0, 12.0], [11.0, 12.0], scale=2.0)
    array([0.25, 0.  ])
    """
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale is {scale}; it is the target's standard deviation, a finite number above 0")
    true, predicted = np.asarray(labels, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if true.ndim != 1 or true.shape != predicted.shape:
        raise ValueError(f"labels have shape {true.shape} and values {predicted.shape}; both must be (n,)")
    bad = np.flatnonzero(~(np.isfinite(true) & np.isfinite(predicted)))
    if bad.size:
        raise ValueError(f"row {bad[0] + 1}: label {true[bad[0]]}, value {predicted[bad[0]]}; both must be finite")
    return np.asarray(((true - predicted) / scale) ** 2)


@dataclass(frozen=True)
class Joined:
    """Predictions with their labels.

    Attributes
    ----------
    rows: one row a labelled prediction: the columns of the predictions; `label`, `label_value`, `labelled_at` and what
        else the labels have; and `loss`, where it was asked for.
    without_label: predictions that no label has come for, in time.
    too_late: those of them whose label came after the cut-off.
    without_prediction: labels of ids that were not predicted.
    """

    rows: pd.DataFrame
    without_label: int
    too_late: int
    without_prediction: int


def join_labels(
    predictions: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    before: datetime | None = None,
    within: timedelta | None = None,
    classes: Sequence[str] | None = None,
    scale: float | None = None,
) -> Joined:
    """Join each prediction with its label by `_id`, the newest version of both.

    Parameters
    ----------
    predictions: `_id`, `_version` and, for losses, `probabilities` (a list a row) or `value`; `at` decides between two
        of the same version. With `within` also `_time`, when the item was inspected.
    labels: `_id`, `_version`, `label`, `_time` (when the label came) and, for regression, `label_value`.
    before: labels that came later do not count; they may be corrections of one that did.
    within: labels that came longer after the inspection do not count. A fixed age makes windows comparable: labels of
        hard items often take longer.
    classes: for the log loss, the classes in the order of the probabilities.
    scale: for the squared error, the target's standard deviation in training.

    Raises
    ------
    ValueError: a column is missing; both `classes` and `scale` are given; what `row_losses` refuses.

    >>> predictions = pd.DataFrame({"_id": ["a", "b"], "_version": 1, "probabilities": [[0.9, 0.1], [0.4, 0.6]]})
    >>> labels = pd.DataFrame({"_id": ["a", "c"], "_version": 1, "label": ["ok", "ok"]})
    >>> labels["_time"] = pd.Timestamp("2026-01-05", tz="UTC")
    >>> joined = join_labels(predictions, labels, classes=["ok", "bad"])
    >>> joined.rows[["_id", "label"]].values.tolist(), joined.rows["loss"].round(3).tolist()
    ([['a', 'ok']], [0.105])
    >>> joined.without_label, joined.without_prediction
    (1, 1)
    """
    if classes is not None and scale is not None:
        raise ValueError("give classes (for the log loss) or scale (for the squared error), not both")
    _need(predictions, ["_id", "_version", *(["_time"] if within is not None else [])], "predictions")
    _need(labels, ["_id", "_version", "_time", "label"], "labels")
    made = _newest(predictions, ["_version", "at"])
    renamed = labels.rename(columns={"_time": "labelled_at"})
    known = renamed if before is None else renamed[renamed["labelled_at"] <= pd.Timestamp(before)]
    if within is not None:
        inspected = known["_id"].map(made.set_index("_id")["_time"])
        # A label of an id that was not predicted has no age; it is counted as without a prediction.
        known = known[inspected.isna() | (known["labelled_at"] - inspected <= within)]
    known = _newest(known, ["_version", "labelled_at"])
    extra = [name for name in known.columns if name == "_id" or name not in made.columns]
    rows = made.merge(known[extra], on="_id", how="inner", validate="one_to_one")
    unlabelled = ~made["_id"].isin(known["_id"])
    if classes is not None:
        _need(rows, ["probabilities"], "predictions")
        table = np.array([list(each) for each in rows["probabilities"]], dtype=np.float64)
        rows["loss"] = row_losses(rows["label"].to_numpy(), classes=classes, probabilities=table)
    elif scale is not None:
        _need(rows, ["label_value", "value"], "labels or predictions")
        rows["loss"] = regression_losses(rows["label_value"].to_numpy(), rows["value"].to_numpy(), scale)
    return Joined(
        rows=rows,
        without_label=int(unlabelled.sum()),
        too_late=int((unlabelled & made["_id"].isin(labels["_id"])).sum()),
        without_prediction=int((~labels["_id"].drop_duplicates().isin(made["_id"])).sum()),
    )


def _newest(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    keys: list[Any] = [name for name in by if name in frame]
    return frame.sort_values(keys, kind="stable").drop_duplicates("_id", keep="last").sort_index()


def _need(frame: pd.DataFrame, columns: list[str], what: str) -> None:
    missing = [name for name in columns if name not in frame]
    if missing:
        raise ValueError(f"{what} lack the column {', '.join(missing)}; they have {', '.join(map(str, frame.columns))}")
