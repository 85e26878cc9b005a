"""From labelled frames to a trained bundle: preprocessing, network, training, calibration in one call.

The module that MLflow is pointed at, too: ``loader_module="softad.bundle"``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from softad.images import ImageSource
from softad.model_bundle import ModelBundle, Predictions, Task, class_numbers, numeric_labels
from softad.model_bundle import load_pyfunc as _load_pyfunc  # the name that MLflow looks for
from softad.models import build_model
from softad.preprocessing import Preprocessor
from softad.training import Epoch, FitResult, OptimizerFactory, fit

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ModelBundle",
    "Predictions",
    "Prepared",
    "_load_pyfunc",
    "prepare",
    "train_bundle",
    "train_prepared",
    "untrained",
]

Part = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""Features and targets."""


@dataclass(frozen=True)
class Prepared:
    """Rows as arrays, ready for any number of trainings.

    Attributes
    ----------
    train, validation: features (n, ...) and targets (n,), class numbers or standardised values.
    target_scale: mean and standard deviation of the training targets; None for classification.
    """

    task: Task
    classes: list[str] | None
    preprocessor: Preprocessor
    train: Part
    validation: Part
    target_scale: tuple[float, float] | None


def prepare(
    frame_train: pd.DataFrame,
    labels_train: npt.ArrayLike,
    frame_validation: pd.DataFrame,
    labels_validation: npt.ArrayLike,
    *,
    task: Task,
    classes: Sequence[str] | None,
    numeric: Sequence[str],
    categorical: Sequence[str],
    image: str | None = None,
    image_size: int = 32,
    images: ImageSource | None = None,
    coded: bool = False,
) -> Prepared:
    """Learn the preprocessing from the training rows, and turn both parts into arrays.

    With `coded`, categories become codes, of which the network then learns a vector each (`embedding`).

    Raises
    ------
    ValueError: a part is empty, labels and rows differ in number, a label is no class or number, a column is
        missing or does not fit, or an image is missing or broken.
    """
    if task not in ("classification", "regression"):
        raise ValueError(f'task: {task!r}; allowed: "classification" or "regression"')
    if task == "classification" and (classes is None or len(classes) < 2):
        raise ValueError(f"classes: {classes!r} with classification; allowed: two or more names")
    parts = (("train", frame_train, labels_train), ("validation", frame_validation, labels_validation))
    for name, frame, labels in parts:
        if len(frame) == 0 or len(frame) != len(np.asarray(labels, dtype=object)):
            raise ValueError(
                f"labels_{name}: {len(np.asarray(labels, dtype=object))} for {len(frame)} rows; "
                "allowed: one a row, and at least one row"
            )
    kept = Preprocessor.fit(
        frame_train, numeric=numeric, categorical=categorical, image=image, image_size=image_size, coded=coded
    )
    scale: tuple[float, float] | None = None
    if task == "classification":
        names = list(classes or [])
        targets: list[npt.NDArray[Any]] = [class_numbers(labels, names) for _, _, labels in parts]
    else:
        values = [numeric_labels(labels) for _, _, labels in parts]
        scale = (float(values[0].mean()), float(values[0].std()) or 1.0)
        targets = [((part - scale[0]) / scale[1]).astype(np.float32) for part in values]
    return Prepared(
        task=task,
        classes=list(classes or []) if task == "classification" else None,
        preprocessor=kept,
        train=(kept.transform(frame_train, images), targets[0]),
        validation=(kept.transform(frame_validation, images), targets[1]),
        target_scale=scale,
    )


def untrained(
    prepared: Prepared,
    *,
    model: str = "mlp",
    hidden: Sequence[int] = (64, 64),
    embedding: Literal["auto"] | int = "auto",
    seed: int = 0,
    metadata: dict[str, Any] | None = None,
) -> ModelBundle:
    """A model for prepared rows with the weights that `seed` gives; the arguments are those of `train_prepared`.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"x": [0.0, 1.0]})
    >>> rows = prepare(frame, ["ok", "bad"], frame, ["ok", "bad"], task="classification", classes=["ok", "bad"],
    ...     numeric=["x"], categorical=[])
    >>> untrained(rows, model="linear").model_spec["outputs"]
    2

    Raises
    ------
    ValueError: the model is unknown, or does not fit the rows.
    """
    kept = prepared.preprocessor
    image = kept.image_shape if kept.image_shape != kept.input_shape else None
    outputs = len(prepared.classes) if prepared.classes is not None else 1
    spec = {
        "name": model,
        "inputs": list(kept.input_shape),
        "outputs": outputs,
        "hidden": list(hidden),
        "image": None if image is None else list(image),
    }
    if kept.categories:
        spec |= {"categories": [list(pair) for pair in kept.categories], "embedding": embedding}
    network = build_model(
        model, inputs=kept.input_shape, outputs=outputs, hidden=hidden, image=image, categories=kept.categories,
        embedding=embedding, seed=seed,
    )  # fmt: skip
    return ModelBundle(
        task=prepared.task,
        model=network,
        model_spec=spec,
        preprocessor=kept,
        classes=prepared.classes,
        temperature=1.0,
        target_scale=prepared.target_scale,
        metadata=metadata or {},
    )


def train_prepared(
    prepared: Prepared,
    *,
    model: str = "mlp",
    hidden: Sequence[int] = (64, 64),
    embedding: Literal["auto"] | int = "auto",
    criterion: Callable[[Tensor], Tensor] | None = None,
    epochs: int = 60,
    patience: int | None = 10,
    batch_size: int = 256,
    optimizer: str | OptimizerFactory = "adamw",
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-4,
    seed: int = 0,
    threads: int | None = None,
    device: str = "cpu",
    checkpoint: Path | None = None,
    progress: Callable[[Epoch], None] | None = None,
    metadata: dict[str, Any] | None = None,
) -> tuple[ModelBundle, FitResult]:
    """Train one model on prepared rows; the arguments are those of `softad.training.fit`.

    `embedding` is the width of the vectors of categories that `prepare` coded. The seed also fixes the initial
    weights. Regression descends on the squared error of the standardised target.

    Raises
    ------
    ValueError, TrainingDiverged: as `softad.training.fit` does.
    """
    bundle = untrained(prepared, model=model, hidden=hidden, embedding=embedding, seed=seed, metadata=metadata)
    result = fit(
        bundle.model,
        *prepared.train,
        criterion=criterion,
        base_loss="cross_entropy" if prepared.task == "classification" else "squared",
        validation=prepared.validation,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        patience=patience,
        seed=seed,
        device=device,
        threads=threads,
        checkpoint=checkpoint,
        progress=progress,
    )
    bundle.model.cpu()
    return replace(bundle, temperature=result.temperature), result


def train_bundle(
    frame_train: pd.DataFrame,
    labels_train: npt.ArrayLike,
    frame_validation: pd.DataFrame,
    labels_validation: npt.ArrayLike,
    *,
    task: Task,
    classes: Sequence[str] | None,
    numeric: Sequence[str],
    categorical: Sequence[str],
    image: str | None = None,
    image_size: int = 32,
    images: ImageSource | None = None,
    model: str = "mlp",
    hidden: Sequence[int] = (64, 64),
    embedding: Literal["auto"] | int | None = None,
    criterion: Callable[[Tensor], Tensor] | None = None,
    epochs: int = 60,
    patience: int | None = 10,
    batch_size: int = 256,
    optimizer: str | OptimizerFactory = "adamw",
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-4,
    seed: int = 0,
    threads: int | None = None,
    device: str = "cpu",
    checkpoint: Path | None = None,
    progress: Callable[[Epoch], None] | None = None,
    metadata: dict[str, Any] | None = None,
) -> tuple[ModelBundle, FitResult]:
    """`prepare`, then `train_prepared`: for a single training of the rows.

    With an `embedding` (a width, or "auto") categories become learnt vectors instead of a feature each.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"x": np.linspace(-1.0, 1.0, 100)})
    >>> labels = np.where(frame["x"] > 0, "bad", "ok")
    >>> bundle, result = train_bundle(frame, labels, frame, labels, task="classification", classes=["ok", "bad"],
    ...     numeric=["x"], categorical=[], model="linear", epochs=30, learning_rate=0.1)
    >>> bundle.predict(pd.DataFrame({"x": [-0.9, 0.9]})).labels.tolist()
    ['ok', 'bad']

    Raises
    ------
    ValueError, TrainingDiverged: as `prepare` and `train_prepared` do.
    """
    prepared = prepare(
        frame_train,
        labels_train,
        frame_validation,
        labels_validation,
        task=task,
        classes=classes,
        numeric=numeric,
        categorical=categorical,
        image=image,
        image_size=image_size,
        images=images,
        coded=embedding is not None,
    )
    return train_prepared(
        prepared,
        model=model,
        hidden=hidden,
        embedding="auto" if embedding is None else embedding,
        criterion=criterion,
        epochs=epochs,
        patience=patience,
        batch_size=batch_size,
        optimizer=optimizer,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
        threads=threads,
        device=device,
        checkpoint=checkpoint,
        progress=progress,
        metadata=metadata,
    )
