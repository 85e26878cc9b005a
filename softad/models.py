"""Networks by name: linear, MLP, a small CNN, or the plant's own ``package.module:factory``."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from softad.embeddings import Categories, CategoryEmbedding

BUILT_IN = ("linear", "mlp", "cnn")


@dataclass(frozen=True)
class ModelSize:
    """How large and how fast a model is.

    Attributes
    ----------
    parameters: number of trainable values.
    seconds_per_row: of a forward pass over 256 rows, on the model's own device, divided by the rows.
    """

    parameters: int
    seconds_per_row: float


def build_model(
    name: str,
    *,
    inputs: tuple[int, ...],
    outputs: int,
    hidden: Sequence[int] = (64, 64),
    image: tuple[int, int, int] | None = None,
    categories: Categories = (),
    embedding: Literal["auto"] | int | Sequence[int] = "auto",
    seed: int | None = None,
) -> nn.Module:
    """Build a network.

    Parameters
    ----------
    name: "linear", "mlp", "cnn", or "package.module:factory"; a factory is called as
        ``factory(inputs=inputs, outputs=outputs)`` and returns an ``nn.Module``.
    inputs: shape of one row: ``(d,)`` for a table, ``(channels, height, width)`` for an image.
    outputs: number of classes, or 1 for regression.
    hidden: widths of the hidden layers of "mlp", and of the layers behind the convolutions of "cnn".
    image: where a row is a flat image followed by table columns, the image's shape; "cnn" then convolves over
        the image and sees the columns beside its features.
    categories: for "linear" and "mlp" on a table, (column, cardinality) of each column that holds the codes
        0 .. cardinality - 1 of categories: each becomes a learnt vector, and any other code a reserved one
        (`softad.embeddings.CategoryEmbedding`). Empty where categories are features of 0 and 1 already;
        `softad.preprocessing.Preprocessor` makes either.
    embedding: width of these vectors: "auto" (from the cardinality), one number, or one a category column.
    seed: fixes the initial weights, and leaves torch's global random state as it was. None draws from that state.

    >>> build_model("mlp", inputs=(4,), outputs=3, hidden=(8,), seed=0)(torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    >>> build_model("cnn", inputs=(3, 16, 16), outputs=2, seed=0)(torch.zeros(5, 3, 16, 16)).shape
    torch.Size([5, 2])
    >>> build_model("mlp", inputs=(4,), outputs=3, categories=[(0, 12)], seed=0)(torch.zeros(5, 4)).shape
    torch.Size([5, 3])

    Raises
    ------
    ValueError: `name` is unknown or cannot be imported, a factory returns no module, or a size does not fit.
    """
    if outputs < 1 or any(size < 1 for size in (*inputs, *hidden)) or not inputs:
        raise ValueError(f"inputs {inputs}, hidden {tuple(hidden)}, outputs {outputs}; allowed: sizes of at least 1")
    if seed is None:
        model = _build(name, inputs, outputs, tuple(hidden), image, categories, embedding)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _build(name, inputs, outputs, tuple(hidden), image, categories, embedding)
    # Read by `describe`; a plain attribute, so it is no part of the weights.
    model.input_shape = inputs  # type: ignore[assignment]
    return model


def _build(
    name: str,
    inputs: tuple[int, ...],
    outputs: int,
    hidden: tuple[int, ...],
    image: tuple[int, int, int] | None,
    categories: Categories,
    embedding: Literal["auto"] | int | Sequence[int],
) -> nn.Module:
    if len(categories) and (name not in ("linear", "mlp") or len(inputs) != 1 or image is not None):
        raise ValueError(
            f"categories: {categories!r} with name {name!r}, inputs {inputs}, image {image}; "
            "allowed: none, save for linear and mlp on a table"
        )
    if ":" in name:
        return _from_factory(name, inputs, outputs)
    if name in ("linear", "mlp"):
        first: nn.Module = nn.Flatten()
        width = math.prod(inputs)
        if len(categories):
            first = CategoryEmbedding(width, categories, embedding)
            width = first.output_width
        return nn.Sequential(first, *_dense(width, hidden if name == "mlp" else (), outputs))
    if name == "cnn":
        shape = image or (inputs if len(inputs) == 3 else None)
        if shape is None:
            raise ValueError(
                f'inputs: {inputs} with "cnn"; allowed: (channels, height, width), or a flat row with image'
            )
        beside = math.prod(inputs) - math.prod(shape)
        if beside < 0:
            raise ValueError(f"image: {shape}; allowed: at most the {math.prod(inputs)} values of a row")
        return SmallCNN((shape[0], shape[1], shape[2]), beside, outputs, hidden)
    raise ValueError(f"name: {name!r}; allowed: {', '.join(BUILT_IN)}, or package.module:factory")


def _from_factory(name: str, inputs: tuple[int, ...], outputs: int) -> nn.Module:
    module_name, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"name: {name!r} cannot be imported ({error}); allowed: package.module:factory on the Python path"
        ) from error
    if not callable(factory):
        raise ValueError(f"name: {name!r} is a {type(factory).__name__}; allowed: a function of inputs and outputs")
    model = factory(inputs=inputs, outputs=outputs)
    if not isinstance(model, nn.Module):
        raise ValueError(f"name: {name!r} returned a {type(model).__name__}; allowed: a torch.nn.Module")
    return model


def _dense(width: int, hidden: tuple[int, ...], outputs: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return [*layers, nn.Linear(width, outputs)]


class SmallCNN(nn.Module):
    """Three convolutions with group normalisation (no statistics of the batch), then dense layers.

    Takes images, shape (n, channels, height, width), or flat rows of an image followed by `beside` columns.

    >>> SmallCNN((1, 8, 8), beside=2, outputs=3)(torch.zeros(4, 66)).shape
    torch.Size([4, 3])
    """

    def __init__(
        self, image: tuple[int, int, int], beside: int = 0, outputs: int = 2, hidden: tuple[int, ...] = (64,)
    ) -> None:
        super().__init__()
        self.image, self.beside = image, beside
        channels, layers = image[0], list[nn.Module]()
        for width, stride in ((16, 2), (32, 2), (64, 1)):
            layers += [nn.Conv2d(channels, width, 3, stride=stride, padding=1), nn.GroupNorm(8, width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.head = nn.Sequential(*_dense(channels * 16 + beside, hidden[-1:], outputs))

    def forward(self, rows: Tensor) -> Tensor:
        """Logits or values, shape (n, outputs)."""
        if not self.beside and rows.ndim == 4:
            return self.head(self.features(rows))  # type: ignore[no-any-return]
        size = math.prod(self.image)
        seen = self.features(rows[:, :size].reshape(-1, *self.image))
        return self.head(torch.cat([seen, rows[:, size:]], dim=1))  # type: ignore[no-any-return]


def describe(model: nn.Module, *, inputs: tuple[int, ...] | None = None, rows: int = 256) -> ModelSize:
    """Count a model's parameters and time its forward pass (the median of five, after one to warm up).

    Parameters
    ----------
    inputs: shape of one row; not needed for what `build_model` built.
    rows: of the timed batch.

    >>> describe(build_model("linear", inputs=(4,), outputs=3, seed=0)).parameters
    15

    Raises
    ------
    ValueError: the shape of a row is not known.
    """
    shape = inputs or getattr(model, "input_shape", None)
    if shape is None:
        raise ValueError("inputs: None, and the model carries no input_shape; allowed: the shape of one row")
    weights = list(model.parameters())
    batch = torch.zeros(rows, *shape, device=weights[0].device if weights else "cpu")
    training = model.training
    model.eval()
    seconds = []
    with torch.inference_mode():
        for _ in range(6):
            started = time.perf_counter()
            float(model(batch).sum())  # reading the number waits for an accelerator
            seconds.append(time.perf_counter() - started)
    model.train(training)
    return ModelSize(
        parameters=sum(weight.numel() for weight in weights if weight.requires_grad),
        seconds_per_row=sorted(seconds[1:])[2] / rows,
    )
