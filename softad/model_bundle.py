"""What travels to the registry: weights as safetensors, and everything else that a prediction needs as JSON.

No pickle is written or read. A network of the plant's own is built again by its name, ``package.module:factory``,
so its code travels by version, beside the bundle.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from softad.bundle_files import DOCUMENT, WEIGHTS
from softad.calibration import cross_entropies, log_probabilities
from softad.checkpoints import copy_state, replace_file
from softad.images import ImageSource
from softad.models import build_model
from softad.preprocessing import Preprocessor
from softad.training import outputs_of

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]
Task = Literal["classification", "regression"]

FORMAT = 1
"""Version of the files; raised when an older program could not read them."""


@dataclass(frozen=True)
class Predictions:
    """What a model says of n rows.

    Attributes
    ----------
    labels: the most probable class of each row as text, shape (n,); None for regression.
    values: the predicted number of each row in the label's unit, shape (n,); None for classification.
    probabilities: after temperature scaling, shape (n, k), columns as the bundle's classes; None for regression.
    warnings: what is unusual about each row against the training rows, n texts; "" where nothing is.
    """

    labels: npt.NDArray[Any] | None
    values: Array | None
    probabilities: Array | None
    warnings: list[str]


@dataclass(frozen=True)
class ModelBundle:
    """A model with all that its predictions need.

    Attributes
    ----------
    task: "classification" or "regression".
    model: the network, on the CPU, in evaluation mode.
    model_spec: arguments of `softad.models.build_model` that build it again.
    preprocessor: from a frame to the network's input.
    classes: names of the outputs; None for regression.
    temperature: that logits are divided by.
    target_scale: mean and standard deviation of the training targets, in which the network's output is
        expressed; None for classification.
    metadata: whatever the trainer wants to keep; JSON-able.

    >>> import pandas as pd, tempfile
    >>> spec = {"name": "linear", "inputs": [1], "outputs": 1, "hidden": [], "image": None}
    >>> frame = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    >>> bundle = ModelBundle("regression", network_of(spec), spec,
    ...     Preprocessor.fit(frame, numeric=["x"], categorical=[]), None, target_scale=(10.0, 2.0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = ModelBundle.load(bundle.save(Path(folder) / "model"))
    >>> again.digest() == bundle.digest(), again.row_losses(frame, [9.0, 10.0, 11.0]).shape
    (True, (3,))

    Raises
    ------
    ValueError: classification without two classes, or regression without a target scale.
    """

    task: Task
    model: nn.Module
    model_spec: dict[str, Any]
    preprocessor: Preprocessor
    classes: list[str] | None
    temperature: float = 1.0
    target_scale: tuple[float, float] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task == "classification" and (self.classes is None or len(self.classes) < 2):
            raise ValueError(f"classes: {self.classes!r} with classification; allowed: two or more names")
        if self.task == "regression" and self.target_scale is None:
            raise ValueError("target_scale: None with regression; allowed: mean and standard deviation")

    def outputs(self, frame: pd.DataFrame, images: ImageSource | None = None) -> Array:
        """The network's raw outputs, shape (n, k): logits, or one standardised value."""
        if len(frame) == 0:
            return np.empty((0, len(self.classes or "1")))
        return np.asarray(outputs_of(self.model, self.preprocessor.transform(frame, images)).numpy(), dtype=np.float64)

    def predict(self, frame: pd.DataFrame, images: ImageSource | None = None) -> Predictions:
        """Classes with probabilities, or values, and warnings, for rows with the training's columns.

        Raises
        ------
        ValueError: a column is missing, a numeric one holds a word, or an image is missing or broken.
        """
        return self.predictions_of(self.outputs(frame, images), self.preprocessor.warnings(frame))

    def predictions_of(self, outputs: Array, warnings: list[str]) -> Predictions:
        """As `predict`, from `outputs` that are there already."""
        if self.task == "regression":
            mean, deviation = self.target_scale or (0.0, 1.0)
            return Predictions(None, outputs.reshape(-1) * deviation + mean, None, warnings)
        names = np.asarray(self.classes, dtype=str)
        if len(outputs) == 0:
            return Predictions(names[:0], None, np.empty((0, names.size)), warnings)
        probabilities = np.exp(log_probabilities(outputs, self.temperature))
        return Predictions(names[probabilities.argmax(axis=1)], None, probabilities, warnings)

    def row_losses(self, frame: pd.DataFrame, labels: npt.ArrayLike, images: ImageSource | None = None) -> Array:
        """Each row's base loss, shape (n,), at least 0, in no unit.

        Classification: minus the logarithm of the true class's probability after temperature scaling. Regression:
        the squared error divided by the variance of the training targets.

        Raises
        ------
        ValueError: a label is no class of the bundle or no finite number; as for `predict`.
        """
        return self.losses_of(self.outputs(frame, images), labels)

    def losses_of(self, outputs: Array, labels: npt.ArrayLike) -> Array:
        """As `row_losses`, from `outputs` that are there already."""
        if len(outputs) == 0:
            return np.empty(0)
        if self.task == "regression":
            mean, deviation = self.target_scale or (0.0, 1.0)
            return np.square(outputs.reshape(-1) - (numeric_labels(labels) - mean) / deviation)
        return cross_entropies(outputs, class_numbers(labels, self.classes or []), self.temperature)

    def save(self, folder: Path) -> Path:
        """Write the bundle's two files into `folder`, each atomically, the one that names the other last.

        Raises
        ------
        OSError: the folder cannot be written.
        """
        weights, document = self._content()
        replace_file(folder / WEIGHTS, weights)
        replace_file(folder / DOCUMENT, document)
        return folder

    @classmethod
    def load(cls, folder: Path) -> ModelBundle:
        """Read what `save` wrote.

        Raises
        ------
        ValueError: a file is missing, damaged, changed since, or made by a newer version; or the network's
            factory cannot be imported.
        """
        try:
            weights, text = (folder / WEIGHTS).read_bytes(), (folder / DOCUMENT).read_bytes()
        except OSError as error:
            raise ValueError(f"{folder}: no model bundle can be read there ({error.strerror})") from error
        try:
            document = json.loads(text)
            if document["format"] != FORMAT:
                raise ValueError(f"format {document['format']!r}, made by another version; this one reads {FORMAT}")
            if document["weights_sha256"] != hashlib.sha256(weights).hexdigest():
                raise ValueError(f"{WEIGHTS} is not the file that was saved with {DOCUMENT}")
            model = network_of(document["model_spec"])
            model.load_state_dict(load(weights))
            scale = document["target_scale"]
            return cls(
                task=document["task"],
                model=model.eval(),
                model_spec=document["model_spec"],
                preprocessor=Preprocessor.from_dict(document["preprocessor"]),
                classes=document["classes"],
                temperature=float(document["temperature"]),
                target_scale=None if scale is None else (float(scale[0]), float(scale[1])),
                metadata=document["metadata"],
            )
        except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"{folder}: the model bundle cannot be loaded: {error}") from error

    def digest(self) -> str:
        """SHA-256 of weights and document, in hex: the same before and after `save` and `load`."""
        weights, document = self._content()
        return hashlib.sha256(weights + document).hexdigest()

    def _content(self) -> tuple[bytes, bytes]:
        weights = save(copy_state(self.model))
        document = {
            "format": FORMAT,
            "task": self.task,
            "model_spec": self.model_spec,
            "preprocessor": self.preprocessor.to_dict(),
            "classes": self.classes,
            "temperature": self.temperature,
            "target_scale": self.target_scale,
            "metadata": self.metadata,
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
        }
        return weights, (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def network_of(spec: dict[str, Any]) -> nn.Module:
    """Build a network from its spec (initial weights are of no meaning).

    >>> network_of({"name": "linear", "inputs": [3], "outputs": 2, "hidden": [], "image": None})[1].in_features
    3
    """
    image = spec["image"]
    return build_model(
        spec["name"],
        inputs=tuple(spec["inputs"]),
        outputs=spec["outputs"],
        hidden=tuple(spec["hidden"]),
        image=None if image is None else (image[0], image[1], image[2]),
        categories=[(place, count) for place, count in spec.get("categories", ())],
        embedding=spec.get("embedding", "auto"),
        seed=0,
    )


def class_numbers(labels: npt.ArrayLike, classes: list[str]) -> npt.NDArray[np.int64]:
    """Labels as places in `classes`, shape (n,).

    >>> class_numbers(["ok", "bad"], ["bad", "ok"]).tolist()
    [1, 0]

    Raises
    ------
    ValueError: a label is not among the classes; names the first and its row.
    """
    place = {name: number for number, name in enumerate(classes)}
    given = np.asarray(labels, dtype=object)
    numbers = np.fromiter((place.get(label if isinstance(label, str) else str(label), -1) for label in given), np.int64)
    if (numbers < 0).any():
        row = int((numbers < 0).argmax())
        raise ValueError(f"labels: {given[row]!r} in row {row}; allowed: {', '.join(classes)}")
    return numbers


def numeric_labels(labels: npt.ArrayLike) -> Array:
    """Labels as finite numbers, shape (n,).

    >>> numeric_labels(["1.5", 2]).tolist()
    [1.5, 2.0]

    Raises
    ------
    ValueError: a label is no finite number; names the first and its row.
    """
    import pandas as pd

    given = pd.Series(np.asarray(labels, dtype=object))
    numbers = np.asarray(pd.to_numeric(given, errors="coerce").to_numpy(dtype=np.float64), dtype=np.float64)
    bad = ~np.isfinite(numbers)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"labels: {given.iloc[row]!r} in row {row}; allowed: finite numbers")
    return numbers


class Pyfunc:
    """The bundle as what MLflow calls a python function: a frame in, a frame out."""

    def __init__(self, bundle: ModelBundle) -> None:
        self.bundle = bundle

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """A column `prediction`, one `probability_<class>` for each class, and `warnings`; images as bytes."""
        import pandas as pd

        said = self.bundle.predict(frame)
        columns: dict[str, Any] = {"prediction": said.values if said.labels is None else said.labels}
        if said.probabilities is not None:
            for number, name in enumerate(self.bundle.classes or []):
                columns[f"probability_{name}"] = said.probabilities[:, number]
        return pd.DataFrame({**columns, "warnings": said.warnings}, index=frame.index)


def load_pyfunc(path: str) -> Pyfunc:
    """For MLflow: ``loader_module="softad.bundle"``, with `path` the folder of a saved bundle."""
    return Pyfunc(ModelBundle.load(Path(path)))
