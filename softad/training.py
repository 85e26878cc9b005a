"""The training loop: mini-batches by index, early stopping, calibration, and a checkpoint that resumes bit by bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softad.augmentation import Augmentation, augmentation
from softad.calibration import fit_temperature
from softad.checkpoints import digest_of
from softad.criteria import Criterion, Mean
from softad.loop import Epoch, Loop, TrainingDiverged, is_over, run_epochs
from softad.optimizers import named_optimizer, thread_count
from softad.row_losses import BaseLoss, plain_loss, row_loss, smoothed
from softad.schedules import Schedule, rate_factors
from softad.sharpness import SAM, SharpDRO
from softad.stopping import StoppingFigure, StopTraining, stopping_figure
from softad.training_data import (
    Data,
    check_takes_weights,
    check_targets,
    groups_of,
    kept_rows,
    kind_of,
    rows_of,
    targets_of,
    tensor_of,
    weights_of,
)

__all__ = ["Epoch", "FitResult", "StopTraining", "TrainingDiverged", "fit", "outputs_of"]

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
    best_epoch: the epoch with the lowest validation figure, from 1; the last one without validation rows.
    stopped_early: whether `patience` or a callback ended the training.
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
    criterion: Callable[..., Tensor] | None = None,
    base_loss: BaseLoss = "cross_entropy",
    label_smoothing: float = 0.0,
    sample_weights: Data | None = None,
    class_weights: str | Sequence[float] | None = None,
    validation: tuple[Data, Data] | None = None,
    epochs: int = 50,
    batch_size: int = 256,
    optimizer: str | OptimizerFactory = "adamw",
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-4,
    momentum: float = 0.9,
    schedule: str | Schedule | None = None,
    warmup: int = 0,
    clip: float | None = None,
    sharpness: float | None = None,
    groups: Data | None = None,
    group_step: float = 0.01,
    patience: int | None = None,
    stop_on: str | StoppingFigure = "mean",
    calibrate: bool = True,
    augment: bool | Augmentation = False,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    checkpoint: Path | None = None,
    callbacks: Sequence[Callable[[Epoch, nn.Module], object]] = (),
    progress: Callable[[Epoch], None] | None = None,
) -> FitResult:
    """Train `model` in place.

    The step is divided by the criterion's sigma: each batch's objective is, before the backward pass. For SGD that
    is the learning rate divided by sigma, with weight decay and clipping as they were; AdamW's step does not depend
    on the scale of gradients in the first place. Otherwise a comparison of sigmas would be one of step sizes.

    What is trained on may be focal, smoothed or weighted. What validation rows are judged by, in every epoch, by early
    stopping, by calibration and by a criterion that observes losses, is always the plain base loss without weights:
    the cross-entropy for "cross_entropy" and "focal", else the base loss itself.

    On the CPU, the same seed, threads and versions give the same bits, also where a training was interrupted and
    taken up from its checkpoint. On an accelerator no number is read before an epoch's end, save by `sharpness`.

    Parameters
    ----------
    features, targets: the training rows, shapes (n, ...) and (n,); class numbers for "cross_entropy" and "focal".
    criterion: from row losses, shape (n,), to a scalar; None is the mean (ERM). With weights it is called with the
        losses and the weights. Where it has ``observe``, it is shown the validation rows' losses after each epoch;
        where it has ``state`` and ``load_state``, the checkpoint keeps what it saw. One that has learnt from an
        earlier training goes on from there: give each training its own.
    base_loss: "cross_entropy", "focal" (gamma 2), "focal:GAMMA"; "squared", "absolute", "huber", "quantile:Q" for
        one output; a pair such as ("focal", 1.5); or a function of (outputs, targets) to shape (n,), such as
        `softad.row_losses.focal(1.5)`. A function's attribute ``plain``, if it has one, is the loss to be judged by.
    label_smoothing: with "cross_entropy", the share of the probability spread over all classes, in [0, 1).
    sample_weights: shape (n,), 0 or more; a whole number is as good as so many copies, 0 as a row left out.
    class_weights: "balanced" gives every class that occurs the same total weight; or one number a class. They are
        multiplied into the rows' weights, and the product is normalised to mean 1.
    validation: features and targets for early stopping and calibration; never trained on.
    epochs, batch_size: a single row left over at the end of an epoch joins the batch before it.
    optimizer: "adamw", "sgd", or a function of (parameters, learning rate) to an optimiser.
    momentum: of "sgd".
    schedule: "cosine" (towards 0), "step" (a tenth after half of the epochs, a hundredth after three quarters), or a
        function of an epoch, from 1, and the number of epochs to a factor on the learning rate; None keeps it.
    warmup: so many epochs rise to the whole rate, epoch by epoch: the factor is multiplied by
        ``epoch / (warmup + 1)``.
    clip: largest norm of the whole gradient (after the division by sigma); None does not clip.
    sharpness: radius of sharpness-aware steps (SAM), which take the gradient at perturbed weights; None takes plain
        ones.
    groups: with `sharpness`, each row's group, shape (n,), integers from 0: SharpDRO then weighs the groups' losses
        and takes the place of criterion and weights. `group_step` is the step size of its group weights.
    patience: stop after so many epochs without a lower validation figure, and take the best epoch's weights; None
        trains to the end and keeps the last weights.
    stop_on: the validation figure that decides the best epoch: "mean" (loss), "tail" (CVaR 0.9), "stability"
        (standard deviation), "error" (share of rows that are misclassified), "balanced_error" (the same, averaged
        over classes), or a function of (losses, outputs, targets), tensors on the CPU, to a number, lower being
        better. Of equal figures the first counts.
    calibrate: with a loss of classes and validation rows, fit the temperature on them.
    augment: True flips images left to right and shifts them by up to a sixteenth; or a function of (batch, generator).
    threads: torch's thread count during the training; restored afterwards.
    checkpoint: a file, replaced after every epoch. If it is there already, the training goes on from it; more
        `epochs` may be asked for than before, save with a schedule, which depends on them.
    callbacks: each is called with (epoch, model) after an epoch, the model in evaluation mode, before the checkpoint
        is written. One that raises `softad.stopping.StopTraining` ends the training; the others still see the epoch,
        and an early-stopped model still gets its best weights.
    progress: called after each epoch (and after the checkpoint was written).

    >>> import numpy as np
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
    TrainingDiverged: the objective, a row's loss, the validation loss or a weight is not finite; it names the epoch,
        the step and the loss, and the row where one is known.
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
        ("stop_on", stop_on, stop_on == "mean" or validation is not None, '"mean" where there are no validation rows'),
        ("threads", threads, threads is None or threads >= 1, "1 or more, or None"),
        ("sharpness", sharpness, sharpness is None or 0.0 <= sharpness < math.inf, "[0, inf) or None"),
        ("group_step", group_step, 0.0 <= group_step < math.inf, "[0, inf)"),
    )
    plain = plain_loss(row_loss(base_loss))
    kind = kind_of(plain)
    loss_of = smoothed(row_loss(base_loss), label_smoothing)
    figure = stopping_figure(stop_on, classification=kind == "classes")
    factors = rate_factors(schedule, warmup, epochs)
    goal = Mean() if criterion is None else criterion
    x, y = rows_of("features", features, device), targets_of("targets", targets, kind, device)
    held = None
    if validation is not None:
        held = rows_of("validation", validation[0], device), targets_of("validation", validation[1], kind, device)
    model.to(device)
    outputs = check_targets(model, x, y, base_loss, "targets")
    if held is not None:
        check_targets(model, *held, base_loss, "validation")
    weights = weights_of(sample_weights, class_weights, y, classes=outputs if kind == "classes" else None)
    kept = kept_rows(weights)
    if weights is not None:
        check_takes_weights(goal)
    members = groups_of(groups, x.shape[0], device)
    if members is not None and (sharpness is None or criterion is not None or weights is not None):
        raise ValueError(
            f"groups: with criterion {criterion!r}, sharpness {sharpness!r} and "
            f"{'no ' if weights is None else ''}weights; allowed: with sharpness, and without criterion and weights"
        )
    if isinstance(goal, nn.Module):
        goal.to(device)
    stepper = _optimizer(optimizer, model, learning_rate, weight_decay, momentum)
    sharp: SAM | SharpDRO | None = None
    if sharpness is not None and members is not None:
        count = int(members.max()) + 1
        sharp = SharpDRO(stepper, groups=count, radius=sharpness, step_size=group_step, model=model)
    elif sharpness is not None:
        sharp = SAM(stepper, radius=sharpness, model=model)
    loop = Loop(
        model=model,
        optimizer=stepper,
        goal=goal,
        # Asked at every step: a scale that is found from the losses changes with them.
        scale=lambda: float(getattr(goal, "scale", 1.0)),
        loss_of=loss_of,
        plain=plain,
        figure=figure,
        batch_size=batch_size,
        clip=clip,
        augment=augmentation(augment, x),
        seed=seed,
        weights=weights,
        kept=kept,
        factors=factors,
        sharp=sharp,
        groups=members,
    )
    identity: dict[str, Any] = {}
    if checkpoint is not None:
        given = [tensor for tensor in (weights, members) if tensor is not None]
        identity = {
            "data": digest_of(x, y, *(held or ()), *given),
            "weights": {name: list(value.shape) for name, value in model.state_dict().items()},
            "criterion": repr(goal) if isinstance(goal, Criterion) else type(goal).__name__,
            "base loss": "own" if kind == "own" else base_loss if isinstance(base_loss, str) else repr(loss_of),
            "optimizer": optimizer if isinstance(optimizer, str) else "own",
            "numbers": [batch_size, learning_rate, weight_decay, momentum, clip, patience, seed],
            "augment": augment if isinstance(augment, bool) else "own",
            # Not there is as good as None: checkpoints from before these arguments are taken up still.
            "label smoothing": label_smoothing or None,
            "schedule": None if factors is None else [schedule if not callable(schedule) else "own", warmup, *factors],
            "stop on": None if stop_on == "mean" else stop_on if isinstance(stop_on, str) else "own",
            "sharpness": None if sharpness is None else [sharpness, group_step],
        }
    with thread_count(threads), torch.random.fork_rng(devices=_accelerators(device)):
        state = run_epochs(
            loop,
            (x, y),
            held,
            epochs=epochs,
            patience=patience,
            checkpoint=checkpoint,
            identity=identity,
            callbacks=callbacks,
            progress=progress,
        )
    model.eval()
    temperature = 1.0
    if calibrate and held is not None and kind == "classes":
        with thread_count(threads):
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

    >>> import numpy as np
    >>> from softad.models import build_model
    >>> outputs_of(build_model("linear", inputs=(2,), outputs=3, seed=0), np.zeros((5, 2), np.float32)).shape
    torch.Size([5, 3])
    """
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    data = tensor_of(features)
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
    return named_optimizer(choice, weights, learning_rate=rate, weight_decay=decay, momentum=momentum)


def _check_ranges(*checks: tuple[str, object, bool, str]) -> None:
    for name, value, holds, allowed in checks:
        if not holds:
            raise ValueError(f"{name}: {value!r}; allowed: {allowed}")


def _accelerators(device: str) -> list[int]:
    where = torch.device(device)
    return [where.index or 0] if where.type == "cuda" else []
