"""The models that one retraining fits on the same rows, and the choice among them on validation rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from flows.errors import BadConfig, BadInput
from flows.settings import Settings

if TYPE_CHECKING:
    from softad.bundle import ModelBundle, Prepared
    from softad.criteria import Criterion
    from softad.training import FitResult

REFERENCE = "erm"
"""Plain training, which all others are compared with."""

IMAGE = "_image"
"""The column of the tables that names a row's image by its content."""


@dataclass(frozen=True)
class Candidate:
    """One fitted model and what it says of the validation rows.

    Attributes
    ----------
    name: "erm", "theta 0.2", "theta auto", or an objective as the config names it.
    theta: the loss level, where it was "auto" the one that training found; None for the reference, which descends on
        the mean loss, and for objectives without one.
    losses: base losses of the validation rows, shape (n,), after calibration.
    uncalibrated: the same before calibration.
    hits: each row's part in the balanced accuracy, shape (n,), which is their mean; None for regression.
    tail: mean loss of the worst tenth.
    """

    name: str
    theta: float | None
    bundle: ModelBundle
    result: FitResult
    losses: np.ndarray
    uncalibrated: np.ndarray
    hits: np.ndarray | None
    tail: float

    @property
    def mean(self) -> float:
        """Mean validation loss."""
        return float(self.losses.mean())

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean recall over the classes; None for regression."""
        return None if self.hits is None else float(self.hits.mean())


@dataclass(frozen=True)
class Diverged:
    """A candidate whose training met a loss that is not finite."""

    name: str
    message: str


def truth_of(frame: pd.DataFrame, settings: Settings) -> np.ndarray:
    """The labels as the task needs them: class names, or numbers."""
    column = "label" if settings.task.kind == "classification" else "label_value"
    values: np.ndarray = frame[column].to_numpy(dtype=object if column == "label" else np.float64)
    return values


def batch_size(rows: int, settings: Settings) -> int:
    """Rows in a mini-batch: as configured, or, where the config says nothing, growing with the rows up to 1,024.

    >>> settings = Settings.model_validate({"name": "a", "data": {"label": "y", "numeric": ["x"],
    ...     "window": {"rows": 100}}})
    >>> [batch_size(rows, settings) for rows in (500, 10_000, 1_000_000)]
    [256, 512, 1024]
    """
    configured = settings.training.batch_size
    if "batch_size" in settings.training.model_fields_set:
        return configured
    return max(configured, min(1024, int(2 ** max(int(np.log2(max(rows, 1) / 16)), 1))))


def threads(prepared: Prepared, settings: Settings) -> int:
    """Threads to train with: as configured, or, where the config says nothing, one for tables.

    A step on a table takes less time than two threads need to meet, and where other processes use the cores, waiting
    for each other makes training many times slower.
    """
    configured = settings.training.threads
    if "threads" in settings.training.model_fields_set:
        return configured
    return 1 if prepared.train[0].ndim == 2 else configured


WORTH_A_PROCESS = 1_000_000
"""Rows times epochs times models from which a further process is worth its start, which takes seconds."""

LARGEST_COPY = 2**29
"""Bytes of prepared rows from which each process's copy of them would be too much."""


def processes(prepared: Prepared, settings: Settings, models: int) -> int:
    """How many models are trained at a time: as configured, or, where the config says nothing, one a core.

    One only where a training has the cores, or an accelerator, to itself, or where there is little to do.
    """
    training = settings.training
    if training.processes is not None:
        return training.processes
    rows = prepared.train[0]
    little = len(rows) * training.epochs * models < WORTH_A_PROCESS
    if little or training.device != "cpu" or threads(prepared, settings) > 1 or rows.nbytes > LARGEST_COPY:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_rows(
    train: pd.DataFrame, validation: pd.DataFrame, settings: Settings, images: Callable[[str], bytes] | None
) -> Prepared:
    """Learn the preprocessing on training rows; raises BadInput with what does not fit."""
    from softad.bundle import prepare

    data = settings.data
    try:
        return prepare(
            train, truth_of(train, settings), validation, truth_of(validation, settings), task=settings.task.kind,
            classes=settings.task.classes if settings.task.kind == "classification" else None, numeric=data.numeric,
            categorical=data.categorical, image=IMAGE if data.image else None, image_size=data.image_size,
            images=images, coded=settings.training.embedding != "none",
        )  # fmt: skip
    except ValueError as error:
        raise BadInput(f"the rows cannot be trained on: {error}; mend the config or the data") from error


def fit_candidates(
    prepared: Prepared,
    settings: Settings,
    *,
    metadata: dict[str, Any],
    progress: Callable[[str], None] | None = None,
) -> tuple[list[Candidate], list[Diverged]]:
    """Fit the reference and one model per theta and further objective: the same seed, early stopping and calibration.

    Returns
    -------
    The candidates, the reference first, and those whose training diverged.

    Raises
    ------
    BadConfig: the reference, or all of the others, diverged.
    """
    from softad import Mean, SoftAD
    from softad.pilot_criteria import criterion_named
    from softad.together import Job, train_all
    from softad.training import TrainingDiverged

    training = settings.training
    criteria: list[tuple[str, Criterion]] = [(REFERENCE, Mean())]
    criteria += [
        (f"theta {theta if theta == 'auto' else format(theta, 'g')}", SoftAD(theta=theta, sigma=training.sigma))
        for theta in dict.fromkeys(training.thetas)
    ]
    criteria += [(name, criterion_named(name)) for name in dict.fromkeys(training.objectives)]
    arguments: dict[str, Any] = {
        "model": training.model, "hidden": training.hidden,
        "embedding": "auto" if training.embedding == "none" else training.embedding,
        "epochs": training.epochs, "patience": training.patience,
        "batch_size": batch_size(len(prepared.train[1]), settings), "optimizer": training.optimizer,
        "learning_rate": training.learning_rate, "weight_decay": training.weight_decay, "seed": training.seed,
        "threads": threads(prepared, settings), "device": training.device,
    }  # fmt: skip

    def starting(number: int) -> None:
        if progress is not None:
            progress(f"training {criteria[number][0]} ({number + 1} of {len(criteria)})")

    trained = train_all(
        prepared,
        [Job(criterion, arguments) for _, criterion in criteria],
        processes=processes(prepared, settings, len(criteria)),
        starting=starting,
    )
    found: list[Candidate] = []
    lost: list[Diverged] = []
    for (name, criterion), outcome in zip(criteria, trained, strict=True):
        if isinstance(outcome, TrainingDiverged):
            lost.append(Diverged(name, str(outcome)))
            continue
        bundle, result = outcome
        # What was "auto" is known now; the model keeps the numbers.
        level, scale = (criterion.theta, criterion.sigma) if isinstance(criterion, SoftAD) else (None, None)
        bundle = replace(bundle, metadata={**metadata, "theta": level, "sigma": scale})
        found.append(_judged(name, None if level is None else float(level), bundle, result, prepared))
    if not found or found[0].name != REFERENCE or (len(found) == 1 and len(criteria) > 1):
        raise BadConfig(f"training diverged ({lost[0].message}); set a smaller training.learning_rate")
    return found, lost


def choose(candidates: Sequence[Candidate]) -> tuple[Candidate, str]:
    """The model with the best tail among those that lose nothing else, and why in words.

    Eligible is a theta whose mean validation loss is within one standard error of the best of all candidates (the
    reference among them) and whose balanced accuracy is within a point, or within one standard error of the paired
    difference where that is more, of the reference's. Where none is, bounding the pull of hard rows costs more than it
    gives on these rows, and the reference is taken.
    """
    from softad.figures import cvar

    (reference,) = (candidate for candidate in candidates if candidate.name == REFERENCE)
    if len(candidates) == 1:
        return reference, f"{reference.name}: training.thetas names none, nor training.objectives, so training is plain"
    best = min(candidates, key=lambda candidate: candidate.mean)
    error = float(best.losses.std() / np.sqrt(len(best.losses)))
    eligible = [
        candidate
        for candidate in candidates
        if candidate is not reference and candidate.mean <= best.mean + error and _keeps_classes(candidate, reference)
    ]
    if not eligible:
        return reference, (
            f"{reference.name}: no theta kept the mean within one standard error ({error:.3g}) of the best and the "
            "balanced accuracy within a point, or its standard error, of plain training's"
        )
    # Equal tails: the larger theta bounds the pull of hard rows earlier.
    chosen = min(eligible, key=lambda candidate: (cvar(candidate.losses, 0.9), -float(candidate.theta or 0)))
    return chosen, f"{chosen.name}: the best tail of {len(eligible)} eligible settings on {len(chosen.losses)} rows"


def _keeps_classes(candidate: Candidate, reference: Candidate) -> bool:
    """Whether the balanced accuracy is not worse by more than a point, and than chance explains easily."""
    if candidate.hits is None or reference.hits is None:
        return True
    lost = reference.hits - candidate.hits
    return bool(lost.mean() <= max(0.01, lost.std() / np.sqrt(lost.size)))


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean recall over the classes that occur.

    >>> balanced_accuracy(np.array(["a", "a", "b"]), np.array(["a", "b", "b"]))
    0.75
    """
    return float(_hits(truth, predicted).mean())


def _hits(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    from softad.judging import class_hits

    names = np.asarray(truth).astype(str)
    return class_hits(names == np.asarray(predicted).astype(str), np.unique(names, return_inverse=True)[1])


def _judged(name: str, theta: float | None, bundle: ModelBundle, result: FitResult, prepared: Prepared) -> Candidate:
    from softad.figures import cvar
    from softad.training import outputs_of

    features, targets = prepared.validation
    outputs = np.asarray(outputs_of(bundle.model, features).numpy(), dtype=np.float64)
    if prepared.task == "classification":
        truth: np.ndarray = np.asarray(prepared.classes)[targets]
        said = bundle.predictions_of(outputs, [])
        hits = None if said.labels is None else _hits(truth, said.labels)
    else:
        mean, deviation = prepared.target_scale or (0.0, 1.0)
        truth, hits = targets.astype(np.float64).reshape(-1) * deviation + mean, None
    losses = bundle.losses_of(outputs, truth)
    plain = replace(bundle, temperature=1.0).losses_of(outputs, truth)
    return Candidate(name, theta, bundle, result, losses, plain, hits, cvar(losses, 0.9))
