"""The training loop: mini-batches by index, early stopping, calibration, and a checkpoint that resumes bit by bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from softad.augmentation import Augmentation, augmentation
from softad.calibration import fit_temperature
from softad.checkpoints import digest_of
from softad.criteria import Criterion, Mean
from softad.loop import Epoch, Loop, TrainingDiverged, is_over, run_epochs
from softad.row_losses import RowLoss, check_targets, row_loss

__all__ = ["Epoch", "FitResult", "TrainingDiverged", "fit", "outputs_of"]

Data = npt.NDArray[Any] | Tensor
"""Rows as an array or a tensor, first axis the rows."""
OptimizerFactory = Callable[[list[nn.Parameter], float], torch.optim.Optimizer]
"""Called with the parameters and the learning rate."""


@dataclass(frozen=True)
class FitResult:
    """A trained model.

    Attributes
    ----------
    model: the module that was given, trained, in evaluation mode.
    temperature: to divide logits by; 1 where nothing was calibrated.
    history: one record an epoch.
    best_epoch: the epoch with the lowest validation loss, from 1; the last one without validation rows.
    stopped_early: whether `patience` ended the training.
    seconds: wall time, all attempts of a resumed training together.
    """

    model: nn.Module
    temperature: float
    history: tuple[Epoch, ...]
    best_epoch: int
    stopped_early: bool
    seconds: float


def fit(
    model: nn.Module,
    features: Data,
    targets: Data,
    *,
    criterion: Callable[[Tensor], Tensor] | None = None,
    base_loss: str | RowLoss = "cross_entropy",
    validation: tuple[Data, Data] | None = None,
    epochs: int = 50,
    batch_size: int = 256,
    optimizer: str | OptimizerFactory = "adamw",
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-4,
    momentum: float = 0.9,
    clip: float | None = None,
    patience: int | None = None,
    calibrate: bool = True,
    augment: bool | Augmentation = False,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[Epoch], None] | None = None,
) -> FitResult:
    """Train `model` in place.

    The step is divided by the criterion's sigma: each batch's objective is, before the backward pass. For SGD that
    is the learning rate divided by sigma, with weight decay and clipping as they were; AdamW's step does not depend
    on the scale of gradients in the first place. Otherwise a comparison of sigmas would be one of step sizes.

    On the CPU, the same seed, threads and versions give the same bits, also where a training was interrupted and
    taken up from its checkpoint.

    Parameters
    ----------
    features, targets: the training rows, shapes (n, ...) and (n,); class numbers for "cross_entropy".
    criterion: from row losses, shape (n,), to a scalar; None is the mean (ERM).
    base_loss: "cross_entropy", "squared", "absolute", "huber", or a function of (outputs, targets) to shape (n,).
    validation: features and targets for early stopping and calibration; never trained on.
    epochs, batch_size: a single row left over at the end of an epoch joins the batch before it.
    optimizer: "adamw", "sgd", or a function of (parameters, learning rate) to an optimiser.
    momentum: of "sgd".
    clip: largest norm of the whole gradient (after the division by sigma); None does not clip.
    patience: stop after so many epochs without a lower validation mean base loss, and take the best epoch's weights;
        None trains to the end and keeps the last weights.
    calibrate: with cross-entropy and validation rows, fit the temperature on them.
    augment: True flips images left to right and shifts them by up to a sixteenth; or a function of (batch, generator).
    threads: torch's thread count during the training; restored afterwards.
    checkpoint: a file, replaced after every epoch. If it is there already, the training goes on from it; more
        `epochs` may be asked for than before.
    progress: called after each epoch (and after the checkpoint was written).

    >>> from softad.models import build_model
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(200, 2)).astype(np.float32)
    >>> result = fit(build_model("linear", inputs=(2,), outputs=2, seed=0), x, (x[:, 0] > 0).astype(int),
    ...              epochs=50, learning_rate=0.1)
    >>> result.best_epoch, result.history[-1].objective < 0.2
    (50, True)

    Raises
    ------
    ValueError: an argument is out of its range, data do not fit the model, or the checkpoint is of another training.
    TrainingDiverged: the objective, the validation loss or a weight is not finite.
    """
    _check_ranges(
        ("epochs", epochs, epochs >= 1, "1 or more"),
        ("batch_size", batch_size, batch_size >= 1, "1 or more"),
        ("learning_rate", learning_rate, 0.0 < learning_rate < math.inf, "(0, inf)"),
        ("weight_decay", weight_decay, 0.0 <= weight_decay < math.inf, "[0, inf)"),
        ("momentum", momentum, 0.0 <= momentum < 1.0, "[0, 1)"),
        ("clip", clip, clip is None or 0.0 < clip < math.inf, "(0, inf) or None"),
        ("patience", patience, patience is None or patience >= 1, "1 or more, or None"),
        ("patience", patience, patience is None or validation is not None, "None where there are no validation rows"),
        ("threads", threads, threads is None or threads >= 1, "1 or more, or None"),
    )
    goal = criterion or Mean()
    loss_of = row_loss(base_loss)
    x, y = _rows("features", features, device), _targets("targets", targets, base_loss, device)
    held = None
    if validation is not None:
        held = _rows("validation", validation[0], device), _targets("validation", validation[1], base_loss, device)
    model.to(device)
    check_targets(model, x, y, base_loss, "targets")
    if held is not None:
        check_targets(model, *held, base_loss, "validation")
    loop = Loop(
        model=model,
        optimizer=_optimizer(optimizer, model, learning_rate, weight_decay, momentum),
        goal=goal,
        scale=float(getattr(goal, "scale", 1.0)),
        loss_of=loss_of,
        batch_size=batch_size,
        clip=clip,
        augment=augmentation(augment, x),
        seed=seed,
    )
    identity: dict[str, Any] = {}
    if checkpoint is not None:
        identity = {
            "data": digest_of(x, y, *(held or ())),
            "weights": {name: list(value.shape) for name, value in model.state_dict().items()},
            "criterion": repr(goal) if isinstance(goal, Criterion) else type(goal).__name__,
            "base loss": base_loss if isinstance(base_loss, str) else "own",
            "optimizer": optimizer if isinstance(optimizer, str) else "own",
            "numbers": [batch_size, learning_rate, weight_decay, momentum, clip, patience, seed],
            "augment": augment if isinstance(augment, bool) else "own",
        }
    with _threads(threads), torch.random.fork_rng(devices=_accelerators(device)):
        state = run_epochs(
            loop,
            (x, y),
            held,
            epochs=epochs,
            patience=patience,
            checkpoint=checkpoint,
            identity=identity,
            progress=progress,
        )
    model.eval()
    temperature = 1.0
    if calibrate and held is not None and base_loss == "cross_entropy":
        with _threads(threads):
            temperature = fit_temperature(outputs_of(model, held[0]).numpy(), held[1].cpu().numpy())
    return FitResult(
        model=model,
        temperature=temperature,
        history=tuple(state.history),
        best_epoch=state.best_epoch if held is not None else len(state.history),
        stopped_early=is_over(state, patience) and len(state.history) < epochs,
        seconds=sum(epoch.seconds for epoch in state.history),
    )


def outputs_of(model: nn.Module, features: Data, *, rows: int = 4096) -> Tensor:
    """The model's outputs in evaluation mode, shape (n, k), on the CPU, `rows` rows at a time.

    >>> from softad.models import build_model
    >>> outputs_of(build_model("linear", inputs=(2,), outputs=3, seed=0), np.zeros((5, 2), np.float32)).shape
    torch.Size([5, 3])
    """
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    data = _tensor(features)
    training = model.training
    model.eval()
    with torch.inference_mode():
        parts = [model(part.to(device)).cpu() for part in torch.split(data, rows)]
    model.train(training)
    # Left inference mode, so that the result may be used like any other tensor.
    return torch.cat(parts).clone()


def _optimizer(
    choice: str | OptimizerFactory, model: nn.Module, rate: float, decay: float, momentum: float
) -> torch.optim.Optimizer:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not weights:
        raise ValueError("model: no trainable parameter; allowed: at least one")
    if callable(choice):
        return choice(weights, rate)
    if choice == "adamw":
        return torch.optim.AdamW(weights, lr=rate, weight_decay=decay, fused=True)
    if choice == "sgd":
        return torch.optim.SGD(weights, lr=rate, momentum=momentum, weight_decay=decay, fused=True)
    raise ValueError(f'optimizer: {choice!r}; allowed: "adamw", "sgd", or a function of (parameters, learning rate)')


def _tensor(data: Data) -> Tensor:
    if isinstance(data, Tensor):
        return data
    array = np.asarray(data)
    # A view of pandas' or Arrow's memory may be read-only, which torch does not know.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _rows(name: str, data: Data, device: str) -> Tensor:
    rows = _tensor(data).to(device=device, dtype=torch.float32)
    if rows.ndim < 2 or rows.shape[0] == 0:
        raise ValueError(f"{name}: shape {tuple(rows.shape)}; allowed: (n, ...) with n >= 1")
    if not bool(torch.isfinite(rows).all()):
        raise ValueError(f"{name}: holds values that are not finite; allowed: finite numbers")
    return rows


def _targets(name: str, data: Data, base_loss: str | RowLoss, device: str) -> Tensor:
    targets = _tensor(data).to(device)
    if base_loss == "cross_entropy" and targets.dtype.is_floating_point:
        raise ValueError(f"{name}: dtype {targets.dtype} with cross-entropy; allowed: integer class numbers")
    if base_loss == "cross_entropy":
        return targets.long()
    return targets.float() if isinstance(base_loss, str) else targets


def _check_ranges(*checks: tuple[str, object, bool, str]) -> None:
    for name, value, holds, allowed in checks:
        if not holds:
            raise ValueError(f"{name}: {value!r}; allowed: {allowed}")


def _accelerators(device: str) -> list[int]:
    where = torch.device(device)
    return [where.index or 0] if where.type == "cuda" else []


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)
