"""Epoch after epoch: one permutation each, early stopping, and a checkpoint that resumes with the same bits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softad.augmentation import Augmentation
from softad.batches import batches_of, drawn_for
from softad.checkpoints import Checkpoint, State, check_identity, copy_state, read_checkpoint, write_checkpoint
from softad.row_losses import RowLoss
from softad.schedules import scale_rates
from softad.sharpness import SAM, SharpDRO
from softad.stopping import StoppingFigure, StopTraining


class TrainingDiverged(RuntimeError):
    """A loss, or a weight, is no longer a finite number.

    Attributes
    ----------
    epoch, step: where, counted from 1.
    loss: the objective there, or the loss of `row`.
    what: what is not finite, in words.
    row: the training row whose loss it was, from 0; None where no single row is known.
    """

    def __init__(self, epoch: int, step: int, loss: float, what: str = "the objective", row: int | None = None) -> None:
        super().__init__(
            f"training diverged in epoch {epoch}, step {step}: {what} is {loss}; "
            "lower the learning rate, set clip, or look for extreme values in the features"
        )
        self.epoch, self.step, self.loss, self.what, self.row = epoch, step, loss, what, row


@dataclass(frozen=True)
class Epoch:
    """One epoch's record.

    Attributes
    ----------
    number, epochs: which one, from 1, out of how many at most.
    objective: mean of the criterion over the epoch's steps.
    validation: mean base loss on the validation rows; None without them.
    best: whether the figure is the lowest so far.
    seconds: wall time of the epoch.
    figure: what decides the best epoch, on the validation rows; None without them.
    """

    number: int
    epochs: int
    objective: float
    validation: float | None
    best: bool
    seconds: float
    figure: float | None = None


@dataclass
class LoopState:
    """What the loop counts, and what a checkpoint keeps of it.

    Attributes
    ----------
    history: one record an epoch.
    best_epoch, best_figure: lowest validation figure and its epoch; 0 and inf before there is one.
    best: that epoch's weights, where early stopping will want them.
    stopped: whether a callback ended the training.
    """

    history: list[Epoch]
    best_epoch: int = 0
    best_figure: float = math.inf
    best: State | None = None
    stopped: bool = False


@dataclass(frozen=True)
class Loop:
    """A model with everything that its training steps need.

    Attributes
    ----------
    goal: from row losses (n,), and their weights where there are some, to a scalar; each batch's is divided by
        `scale` before the backward pass.
    loss_of: the loss of each row that is trained on.
    plain: the loss of each row that validation rows are judged by.
    figure: of the validation rows, decides the best epoch.
    clip: largest gradient norm, or None.
    augment: changes a batch of features, or None.
    seed: of the permutations, and of whatever the model and `augment` draw.
    weights: of the training rows, shape (n,), or None.
    kept: numbers of the rows to train on, or None for all.
    factors: of the learning rate in each epoch, or None.
    sharp: takes the steps of `optimizer` at perturbed weights, or None.
    groups: of the training rows, shape (n,), where `sharp` is a `SharpDRO`.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    goal: Callable[..., Tensor]
    scale: Callable[[], float]
    loss_of: RowLoss
    plain: RowLoss
    figure: StoppingFigure
    batch_size: int
    clip: float | None
    augment: Augmentation | None
    seed: int
    weights: Tensor | None = None
    kept: Tensor | None = None
    factors: tuple[float, ...] | None = None
    sharp: SAM | SharpDRO | None = None
    groups: Tensor | None = None
    rates: list[float] = field(init=False)

    def __post_init__(self) -> None:
        # The rates before any schedule: a checkpoint holds those of its last epoch.
        object.__setattr__(self, "rates", [float(group["lr"]) for group in self.optimizer.param_groups])

    def epoch(self, x: Tensor, y: Tensor, number: int) -> float:
        """One pass over a permutation of the rows; returns the mean objective."""
        if self.factors is not None:
            scale_rates(self.optimizer, self.rates, self.factors[number - 1])
        # Seeded by epoch, so that no random state has to be kept: dropout and the like draw from torch's own.
        torch.manual_seed((self.seed * 1_000_003 + number) % 2**63)
        drawn = drawn_for(self.seed, number)
        order = torch.randperm(x.shape[0] if self.kept is None else self.kept.shape[0], generator=drawn).to(x.device)
        if self.kept is not None:
            order = self.kept[order]
        self.model.train()
        descend = self._step if self.sharp is None else self._sharp_step
        objectives: list[Tensor] = []
        for batch in batches_of(order, self.batch_size):
            rows = x[batch] if self.augment is None else self.augment(x[batch], drawn)
            objectives.append(descend(rows, y[batch], batch, (number, len(objectives) + 1)).detach())
        # Looked at once an epoch: reading a number at every step would make an accelerator wait.
        values = torch.stack(objectives).double().cpu()
        if not bool(torch.isfinite(values).all()):
            step = int((~torch.isfinite(values)).to(torch.int8).argmax())
            raise TrainingDiverged(number, step + 1, float(values[step]))
        for name, weight in self.model.named_parameters():
            if not bool(torch.isfinite(weight).all()):
                raise TrainingDiverged(number, len(objectives), math.nan, f"the weight {name}")
        return float(values.mean())

    def _step(self, rows: Tensor, targets: Tensor, batch: Tensor, where: tuple[int, int]) -> Tensor:
        objective = self._objective(rows, targets, batch, where)
        self.optimizer.zero_grad()
        scale = self.scale()
        (objective if scale == 1.0 else objective / scale).backward()  # type: ignore[no-untyped-call]
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        return objective

    def _objective(self, rows: Tensor, targets: Tensor, batch: Tensor, where: tuple[int, int]) -> Tensor:
        losses = self.loss_of(self.model(rows), targets)
        try:
            return self.goal(losses) if self.weights is None else self.goal(losses, self.weights[batch])
        except ValueError as error:
            _diverged_row(error, losses, batch, *where)
            raise

    def _sharp_step(self, rows: Tensor, targets: Tensor, batch: Tensor, where: tuple[int, int]) -> Tensor:
        seen: list[Tensor] = []

        def row_losses() -> Tensor:
            seen.append(self.loss_of(self.model(rows), targets))
            return seen[-1]

        def objective() -> Tensor:
            value = self._objective(rows, targets, batch, where)
            (value / self.scale()).backward()  # type: ignore[no-untyped-call]
            return value.detach()

        # The gradient that is clipped is the one that the weights move along, not those that perturb them.
        clipped = self.optimizer.register_step_pre_hook(self._clip_gradient)
        try:
            if self.groups is not None and isinstance(self.sharp, SharpDRO):
                return self.sharp.step(row_losses, self.groups[batch])
            value: Tensor = self.sharp.step(objective)  # type: ignore[union-attr]
            return value
        except ValueError as error:
            if seen:
                _diverged_row(error, seen[-1], batch, *where)
            raise
        except FloatingPointError as error:
            raise TrainingDiverged(*where, math.nan, "the norm of the gradient") from error
        finally:
            clipped.remove()

    def _clip_gradient(self, *_: object) -> None:
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)

    def judge(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Plain losses (n,), in double precision, and outputs of rows that are not trained on, on the CPU."""
        self.model.eval()
        losses, outputs = [], []
        with torch.no_grad():
            for rows, true in zip(torch.split(x, 4096), torch.split(y, 4096), strict=True):
                outputs.append(self.model(rows))
                losses.append(self.plain(outputs[-1], true))
        return torch.cat(losses).cpu().double(), torch.cat(outputs).cpu()


def run_epochs(
    loop: Loop,
    train: tuple[Tensor, Tensor],
    held: tuple[Tensor, Tensor] | None,
    *,
    epochs: int,
    patience: int | None,
    checkpoint: Path | None,
    identity: dict[str, Any],
    callbacks: Sequence[Callable[[Epoch, nn.Module], object]] = (),
    progress: Callable[[Epoch], None] | None = None,
) -> LoopState:
    """Train to the end, until `patience` epochs brought nothing, or until a callback says so.

    With `patience` the best epoch's weights are loaded then. `identity` says what the training was started with; a
    checkpoint of another one is refused.

    Raises
    ------
    TrainingDiverged: the objective, the validation loss or a weight is not finite.
    ValueError: the checkpoint is damaged, of another training, or holds more epochs than asked for.
    """
    state = LoopState([])
    if checkpoint is not None and checkpoint.exists():
        state = _restore(loop, checkpoint, identity, epochs)
    while len(state.history) < epochs and not is_over(state, patience):
        number, started = len(state.history) + 1, time.perf_counter()
        objective = loop.epoch(*train, number)
        loss = figure = None
        if held is not None:
            loss, figure = _validate(loop, held, number, -(-train[0].shape[0] // loop.batch_size))
        best = figure is not None and figure < state.best_figure
        if best and figure is not None:
            state.best_epoch, state.best_figure = number, figure
            state.best = copy_state(loop.model) if patience is not None else None
        record = Epoch(number, epochs, objective, loss, best, time.perf_counter() - started, figure)
        state.history.append(record)
        # Before the checkpoint, which then holds what a callback did to the model, and that it ended the training.
        state.stopped = _call(callbacks, record, loop.model)
        if checkpoint is not None:
            write_checkpoint(checkpoint, _checkpoint(loop, state, identity))
        if progress is not None:
            progress(record)
    if state.best is not None:
        loop.model.load_state_dict(state.best)
    return state


def is_over(state: LoopState, patience: int | None) -> bool:
    """Whether a callback ended the training, or the last `patience` epochs brought no lower validation figure."""
    return state.stopped or (patience is not None and len(state.history) - state.best_epoch >= patience)


def _validate(loop: Loop, held: tuple[Tensor, Tensor], number: int, steps: int) -> tuple[float, float]:
    losses, outputs = loop.judge(*held)
    loss = float(losses.mean())
    if not math.isfinite(loss):
        raise TrainingDiverged(number, steps, loss, "the validation loss")
    observe = getattr(loop.goal, "observe", None)
    if observe is not None:
        observe(losses)
    figure = float(loop.figure(losses, outputs, held[1].cpu()))
    if not math.isfinite(figure):
        raise ValueError(f"stop_on: {figure!r} in epoch {number}; allowed: a finite number")
    return loss, figure


def _call(callbacks: Sequence[Callable[[Epoch, nn.Module], object]], record: Epoch, model: nn.Module) -> bool:
    """Call all, and say whether one of them wants the training to end."""
    stopped = False
    model.eval()
    for callback in callbacks:
        try:
            callback(record, model)
        except StopTraining:
            stopped = True
    return stopped


def _diverged_row(error: ValueError, losses: Tensor, batch: Tensor, epoch: int, step: int) -> None:
    """Raise a criterion's refusal of losses as the divergence of a row, where one's loss is not finite."""
    bad = ~torch.isfinite(losses.detach())
    if losses.shape == batch.shape and bool(bad.any()):
        place = int(bad.to(torch.int8).argmax())
        row = int(batch[place])
        raise TrainingDiverged(epoch, step, float(losses[place].detach()), f"the loss of row {row}", row) from error


def _checkpoint(loop: Loop, state: LoopState, identity: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        weights=copy_state(loop.model),
        best=state.best or {},
        optimizer=(loop.optimizer if loop.sharp is None else loop.sharp).state_dict(),
        progress={
            "history": [asdict(epoch) for epoch in state.history],
            "best_epoch": state.best_epoch,
            "best_loss": state.best_figure if state.best_epoch else None,
            "stopped": state.stopped,
            "criterion": dict(getattr(loop.goal, "state", dict)()),
        },
        identity=identity,
    )


def _restore(loop: Loop, path: Path, identity: dict[str, Any], epochs: int) -> LoopState:
    kept = read_checkpoint(path)
    check_identity(path, kept.identity, identity)
    loop.model.load_state_dict(kept.weights)
    (loop.optimizer if loop.sharp is None else loop.sharp).load_state_dict(kept.optimizer)
    history = [Epoch(**{**record, "epochs": epochs}) for record in kept.progress["history"]]
    if len(history) > epochs:
        raise ValueError(f"epochs: {epochs}; allowed: at least the {len(history)} that {path} holds already")
    seen = kept.progress.get("criterion")
    if seen:
        loop.goal.load_state(seen)  # type: ignore[attr-defined]
    figure = kept.progress["best_loss"]
    return LoopState(
        history,
        kept.progress["best_epoch"],
        math.inf if figure is None else figure,
        kept.best or None,
        kept.progress.get("stopped", False),
    )
