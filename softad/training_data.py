"""What a training is given, as tensors on its device: features, targets, weights and groups, each checked by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from softad.row_losses import BY_NAME, BaseLoss, Quantile, RowLoss, cross_entropy, plain_loss, row_loss

Data = npt.NDArray[Any] | Tensor
"""Rows as an array or a tensor, first axis the rows."""
Kind = Literal["classes", "values", "own"]
"""Targets are class numbers, numbers, or whatever an own loss takes."""


def kind_of(loss: RowLoss) -> Kind:
    """What targets a base loss takes.

    >>> from softad.row_losses import focal, squared
    >>> kind_of(focal(2.0)), kind_of(squared), kind_of(lambda outputs, targets: outputs[:, 0])
    ('classes', 'values', 'own')
    """
    plain = plain_loss(loss)
    if plain is cross_entropy:
        return "classes"
    return "values" if plain in BY_NAME.values() or isinstance(plain, Quantile) else "own"


def tensor_of(data: Data) -> Tensor:
    """An array as a tensor over the same memory, or the tensor that was given.

    >>> tensor_of(np.arange(3))
    tensor([0, 1, 2])
    """
    if isinstance(data, Tensor):
        return data
    array = np.asarray(data)
    # A view of pandas' or Arrow's memory may be read-only, which torch does not know.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def rows_of(name: str, data: Data, device: str) -> Tensor:
    """Features in single precision on the device, shape (n, ...).

    >>> rows_of("features", np.array([[0.0, 1.0], [np.inf, 2.0]]), "cpu")
    Traceback (most recent call last):
    ...
    ValueError: features: holds values that are not finite, the first (inf) in row 1, column 0; allowed: ...

    Raises
    ------
    ValueError: no rows, no second axis, or a value that is not finite (in single precision).
    """
    rows = tensor_of(data).to(device=device, dtype=torch.float32)
    if rows.ndim < 2 or rows.shape[0] == 0:
        raise ValueError(f"{name}: shape {tuple(rows.shape)}; allowed: (n, ...) with n >= 1")
    if not bool(torch.isfinite(rows).all()):
        place = [int(number) for number in (~torch.isfinite(rows)).nonzero()[0]]
        column = place[1] if rows.ndim == 2 else tuple(place[1:])
        raise ValueError(
            f"{name}: holds values that are not finite, the first ({float(rows[tuple(place)])}) in row {place[0]}, "
            f"column {column}; allowed: finite numbers in single precision"
        )
    return rows


def targets_of(name: str, data: Data, kind: Kind, device: str) -> Tensor:
    """Targets on the device: class numbers as integers, numbers in single precision, others as they are.

    >>> targets_of("targets", np.array([0, 1]), "values", "cpu")
    tensor([0., 1.])

    Raises
    ------
    ValueError: class numbers are of a floating point type.
    """
    targets = tensor_of(data).to(device)
    if kind == "classes" and targets.dtype.is_floating_point:
        raise ValueError(f"{name}: dtype {targets.dtype} with cross-entropy; allowed: integer class numbers")
    if kind == "classes":
        return targets.long()
    return targets.float() if kind == "values" else targets


def check_targets(model: nn.Module, features: Tensor, targets: Tensor, choice: BaseLoss, name: str) -> int:
    """Try one row, so that shapes that do not fit are named before an epoch has run; returns the number of outputs.

    >>> check_targets(nn.Linear(2, 3), torch.zeros(4, 2), torch.tensor([0, 1, 2, 3]), "cross_entropy", "targets")
    Traceback (most recent call last):
    ...
    ValueError: targets: class numbers 0 to 3 for outputs of shape (1, 3); allowed: 0 to one less than ...

    Raises
    ------
    ValueError: rows and targets differ in number, rows do not fit the model, a class number has no output, or the
        loss is not one a row.
    """
    loss = row_loss(choice)
    kind, rows = kind_of(loss), features.shape[0]
    if targets.shape != (rows,):
        raise ValueError(f"{name}: shape {tuple(targets.shape)}; allowed: ({rows},), one a row of features")
    if kind != "own" and not bool(torch.isfinite(targets).all()):
        row = int((~torch.isfinite(targets)).to(torch.int8).argmax())
        raise ValueError(
            f"{name}: holds values that are not finite, the first ({float(targets[row])}) in row {row}; "
            "allowed: finite numbers"
        )
    training = model.training
    model.eval()
    with torch.inference_mode():
        try:
            outputs = model(features[:1])
        except (RuntimeError, IndexError) as error:
            raise ValueError(
                f"{name.replace('targets', 'features')}: rows of shape {tuple(features.shape[1:])} do not fit the "
                f"model ({error}); allowed: rows of the shape that it was built for"
            ) from error
        finally:
            model.train(training)
        if kind == "classes":
            low, high = int(targets.min()), int(targets.max())
            if outputs.ndim != 2 or low < 0 or high >= outputs.shape[1]:
                raise ValueError(
                    f"{name}: class numbers {low} to {high} for outputs of shape {tuple(outputs.shape)}; "
                    "allowed: 0 to one less than the number of outputs"
                )
        elif kind == "values" and outputs.numel() != 1:
            raise ValueError(f"model: {tuple(outputs.shape[1:])} values a row with {choice!r}; allowed: one")
        losses = loss(outputs, targets[:1])
    if losses.shape != (1,):
        raise ValueError(f"base_loss: shape {tuple(losses.shape)} for one row; allowed: (1,), one loss a row")
    return int(outputs.shape[1]) if outputs.ndim == 2 else 1


def weights_of(
    sample_weights: Data | None,
    class_weights: str | Sequence[float] | None,
    targets: Tensor,
    *,
    classes: int | None,
) -> Tensor | None:
    """Each row's weight, shape (n,), on the targets' device; None where every row counts alike.

    Class weights multiply into the rows' own, and the product is normalised to mean 1. "balanced" gives every class
    that occurs the same total weight.

    Parameters
    ----------
    classes: the number of classes; None for regression, which has no class weights.

    >>> weights_of(None, "balanced", torch.tensor([0, 0, 0, 1]), classes=2)
    tensor([0.6667, 0.6667, 0.6667, 2.0000])
    >>> weights_of(np.array([1.0, 2.0, 0.0]), None, torch.zeros(3), classes=None)
    tensor([1., 2., 0.])

    Raises
    ------
    ValueError: weights do not fit the rows or classes, one is negative or not finite, none is positive, or there is
        one class only to balance.
    """
    weights = None
    if sample_weights is not None:
        weights = tensor_of(sample_weights).to(device=targets.device, dtype=torch.float32)
        _check_weights("sample_weights", weights, targets.shape[0], "one a row of features")
    if class_weights is None:
        return weights
    if classes is None:
        raise ValueError(f"class_weights: {class_weights!r} with regression; allowed: None")
    own = torch.ones(targets.shape[0], device=targets.device) if weights is None else weights
    if isinstance(class_weights, str):
        if class_weights != "balanced":
            raise ValueError(f'class_weights: {class_weights!r}; allowed: None, "balanced", or one number a class')
        total = torch.zeros(classes, dtype=torch.float64, device=targets.device).index_add_(0, targets, own.double())
        if int((total > 0).sum()) < 2:
            raise ValueError(
                f"class_weights: 'balanced' with rows of one class only, class {int(total.argmax())}; "
                "allowed: rows of two classes or more"
            )
        by_class = torch.where(total > 0, 1.0 / total, 0.0)
    else:
        by_class = torch.as_tensor(class_weights, dtype=torch.float64, device=targets.device)
        _check_weights("class_weights", by_class, classes, "one a class")
    combined = own.double() * by_class[targets]
    if not bool(combined.sum() > 0):
        raise ValueError(f"class_weights: {class_weights!r} leaves no row a weight; allowed: a positive one at least")
    return (combined / combined.mean()).float()


def kept_rows(weights: Tensor | None) -> Tensor | None:
    """Numbers of the rows with a positive weight, or None where all have one: weight 0 means that a row is not there.

    >>> kept_rows(torch.tensor([1.0, 0.0, 2.0]))
    tensor([0, 2])
    """
    if weights is None or bool((weights > 0).all()):
        return None
    return (weights > 0).nonzero()[:, 0]


def check_takes_weights(criterion: Callable[..., Tensor]) -> None:
    """Refuse a criterion of losses alone where there are weights.

    >>> check_takes_weights(lambda losses: losses.mean())
    Traceback (most recent call last):
    ...
    ValueError: criterion: takes losses alone; allowed with sample_weights or class_weights: a function of ...

    Raises
    ------
    ValueError: it cannot be called with losses and weights.
    """
    called = criterion.forward if isinstance(criterion, nn.Module) else criterion
    try:
        inspect.signature(called).bind(None, None)
    except TypeError as error:
        raise ValueError(
            "criterion: takes losses alone; allowed with sample_weights or class_weights: a function of "
            "(losses, weights)"
        ) from error


def groups_of(data: Data | None, rows: int, device: str) -> Tensor | None:
    """Group numbers from 0, shape (n,), on the device.

    >>> groups_of(np.array([0, 2, 1]), 3, "cpu")
    tensor([0, 2, 1])

    Raises
    ------
    ValueError: not one a row, not integers, or negative.
    """
    if data is None:
        return None
    groups = tensor_of(data).to(device)
    if groups.shape != (rows,):
        raise ValueError(f"groups: shape {tuple(groups.shape)}; allowed: ({rows},), one a row of features")
    if groups.dtype.is_floating_point or groups.dtype.is_complex or int(groups.min()) < 0:
        raise ValueError(f"groups: {groups.dtype} from {groups.min().item()}; allowed: integers from 0")
    return groups.long()


def _check_weights(name: str, weights: Tensor, count: int, meaning: str) -> None:
    if weights.shape != (count,):
        raise ValueError(f"{name}: shape {tuple(weights.shape)}; allowed: ({count},), {meaning}")
    bad = ~(torch.isfinite(weights) & (weights >= 0))
    if bool(bad.any()):
        place = int(bad.to(torch.int8).argmax())
        raise ValueError(f"{name}: {float(weights[place])} at {place}; allowed: finite numbers of at least 0")
    if not bool((weights > 0).any()):
        raise ValueError(f"{name}: all are 0; allowed: a positive one at least")
