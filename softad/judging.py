"""What a candidate is judged by, as contributions of single rows: every figure is the mean of its contributions.

A mean, a share of rows and (linearised at its quantile, as by Rockafellar and Uryasev) CVaR are means over rows, so
differences between candidates are means of paired differences, whose error the rows themselves tell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from softad.calibration import cross_entropies, fit_temperature, log_probabilities
from softad.recall import defect_scores, reject_threshold

Array = npt.NDArray[np.float64]

LEVEL = 0.9
"""Of the tail: the mean loss of the worst tenth of the rows."""


@dataclass(frozen=True)
class FigureName:
    """A figure: its key, its name for people, and whether a larger one is better."""

    key: str
    title: str
    larger_is_better: bool = False


MEAN = FigureName("mean", "mean loss")
TAIL = FigureName("tail", "CVaR 0.9 of the loss")
STABILITY = FigureName("stability", "standard deviation of the loss")
ACCURACY = FigureName("accuracy", "accuracy", True)
BALANCED = FigureName("balanced_accuracy", "balanced accuracy", True)
RECALL = FigureName("recall", "recall of defects at the false-reject rate", True)
ABSOLUTE = FigureName("absolute_error", "mean absolute error")
RMSE = FigureName("rmse", "root mean squared error")
FIGURES = {one.key: one for one in (MEAN, TAIL, STABILITY, ACCURACY, BALANCED, RECALL, ABSOLUTE, RMSE)}


@dataclass(frozen=True)
class Judged:
    """A candidate in one round.

    Attributes
    ----------
    after: figure to the contributions of the judged rows, after temperature scaling, shape (n,).
    before: figure to its value before temperature scaling.
    temperature: 1 for regression.
    outputs: what was said of each judged row: probabilities after temperature scaling, shape (n, k), or for regression
        how far the prediction is above the value, in the label's unit, shape (n, 1).
    """

    after: dict[str, Array]
    before: dict[str, float]
    temperature: float
    outputs: npt.NDArray[np.float32]


def class_hits(right: npt.NDArray[np.bool_], target: npt.NDArray[np.int64]) -> Array:
    """Each row's part in the balanced accuracy, shape (n,): 0, or what a hit in its class adds; the mean is the figure.

    Parameters
    ----------
    right: whether the row was told its class, shape (n,).
    target: class numbers, shape (n,); classes that do not occur do not count.

    >>> class_hits(np.array([True, False, True]), np.array([0, 0, 1])).tolist()
    [0.75, 0.0, 1.5]
    """
    counts = np.bincount(target).astype(np.float64)
    return np.asarray(right.astype(np.float64) * target.size / (counts[target] * np.count_nonzero(counts)))


def judge_classes(
    outputs: Array,
    target: npt.NDArray[np.int64],
    held_outputs: Array,
    held_target: npt.NDArray[np.int64],
    *,
    normal: int,
    rate: float,
) -> Judged:
    """Judge logits (n, k) of rows with class numbers `target`, the temperature fitted on the held-out ones.

    >>> logits, labels = np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]]), np.array([0, 1, 1])
    >>> found = judge_classes(logits, labels, logits, labels, normal=0, rate=0.0)
    >>> float(found.after["balanced_accuracy"].mean()), round(float(found.after["recall"].mean()), 3)
    (0.75, 0.5)
    """
    temperature = fit_temperature(held_outputs, held_target)
    # Without a wrong row there is no finite optimum, and a sharper model would only be a more reckless one.
    if bool((held_outputs.argmax(1) == held_target).all()):
        temperature = max(temperature, 1.0)
    right = outputs.argmax(1) == target
    after = _three(cross_entropies(outputs, target, temperature))
    after["accuracy"] = right.astype(np.float64)
    after["balanced_accuracy"] = class_hits(right, target)
    said = np.exp(log_probabilities(outputs, temperature))
    recall = _recall(said, target, normal, rate)
    if recall is not None:
        after["recall"] = recall
    before = {name: float(values.mean()) for name, values in _three(cross_entropies(outputs, target)).items()}
    return Judged(after, before, temperature, said.astype(np.float32))


def judge_values(outputs: Array, target: Array, unit: float) -> Judged:
    """Judge predictions (n,): the loss is the squared error in units of the target's standard deviation.

    >>> found = judge_values(np.array([0.0, 1.0]), np.array([0.0, 3.0]), unit=10.0)
    >>> float(found.after["mean"].mean()), float(found.after["absolute_error"].mean())
    (2.0, 10.0)
    """
    errors = outputs.astype(np.float64) - target
    after = _three(np.square(errors))
    before = {name: float(values.mean()) for name, values in after.items()}
    after["absolute_error"] = np.abs(errors) * unit
    size = math.sqrt(float(np.square(errors).mean())) or 1.0
    after["rmse"] = unit * (np.square(errors) / size + size) / 2.0 if errors.any() else np.zeros(errors.size)
    return Judged(after, before, 1.0, (errors * unit).astype(np.float32)[:, None])


def _three(losses: Array) -> dict[str, Array]:
    limit = float(np.quantile(losses, LEVEL, method="inverted_cdf"))
    tail = limit + np.maximum(losses - limit, 0.0) / (1.0 - LEVEL)
    centre, deviation = float(losses.mean()), float(losses.std())
    # The mean of (x / s + s) / 2 over squared deviations x with mean s^2 is s.
    spread = (np.square(losses - centre) / deviation + deviation) / 2.0 if deviation > 0.0 else np.zeros(losses.size)
    return {"mean": losses, "tail": tail, "stability": spread}


def _recall(probabilities: Array, target: npt.NDArray[np.int64], normal: int, rate: float) -> Array | None:
    """Contributions of the rows to recall at the false-reject rate."""
    scores, defects = defect_scores(probabilities, normal), target != normal
    if defects.all() or not defects.any():
        return None
    rejected = scores > reject_threshold(scores[~defects], rate)
    return np.asarray(rejected * defects * (target.size / defects.sum()), dtype=np.float64)
