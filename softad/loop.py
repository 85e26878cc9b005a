"""Epoch after epoch: one permutation each, early stopping, and a checkpoint that resumes with the same bits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softad.augmentation import Augmentation
from softad.checkpoints import Checkpoint, State, check_identity, copy_state, read_checkpoint, write_checkpoint
from softad.row_losses import RowLoss


class TrainingDiverged(RuntimeError):
    """A loss, or a weight, is no longer a finite number.

    Attributes
    ----------
    epoch, step: where, counted from 1.
    loss: the objective there.
    """

    def __init__(self, epoch: int, step: int, loss: float, what: str = "the objective") -> None:
        super().__init__(
            f"training diverged in epoch {epoch}, step {step}: {what} is {loss}; "
            "lower the learning rate, set clip, or look for extreme values in the features"
        )
        self.epoch, self.step, self.loss = epoch, step, loss


@dataclass(frozen=True)
class Epoch:
    """One epoch's record.

    Attributes
    ----------
    number, epochs: which one, from 1, out of how many at most.
    objective: mean of the criterion over the epoch's steps.
    validation: mean base loss on the validation rows; None without them.
    best: whether that is the lowest so far.
    seconds: wall time of the epoch.
    """

    number: int
    epochs: int
    objective: float
    validation: float | None
    best: bool
    seconds: float


@dataclass
class LoopState:
    """What the loop counts, and what a checkpoint keeps of it.

    Attributes
    ----------
    history: one record an epoch.
    best_epoch, best_loss: lowest validation loss and its epoch; 0 and inf before there is one.
    best: that epoch's weights, where early stopping will want them.
    """

    history: list[Epoch]
    best_epoch: int = 0
    best_loss: float = math.inf
    best: State | None = None


@dataclass(frozen=True)
class Loop:
    """A model with everything that its training steps need.

    Attributes
    ----------
    goal: from row losses (n,) to a scalar; each batch's is divided by `scale` before the backward pass.
    loss_of: the base loss of each row.
    clip: largest gradient norm, or None.
    augment: changes a batch of features, or None.
    seed: of the permutations, and of whatever the model and `augment` draw.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    goal: Callable[[Tensor], Tensor]
    scale: float
    loss_of: RowLoss
    batch_size: int
    clip: float | None
    augment: Augmentation | None
    seed: int

    def epoch(self, x: Tensor, y: Tensor, number: int) -> float:
        """One pass over a permutation of the rows; returns the mean objective."""
        # Seeded by epoch, so that no random state has to be kept: dropout and the like draw from torch's own.
        torch.manual_seed((self.seed * 1_000_003 + number) % 2**63)
        drawn = torch.Generator().manual_seed((self.seed * 2_000_029 + number) % 2**63)
        order = torch.randperm(x.shape[0], generator=drawn).to(x.device)
        self.model.train()
        objectives = []
        for batch in _batches(order, self.batch_size):
            rows = x[batch] if self.augment is None else self.augment(x[batch], drawn)
            objective = self.goal(self.loss_of(self.model(rows), y[batch]))
            self.optimizer.zero_grad()
            (objective if self.scale == 1.0 else objective / self.scale).backward()  # type: ignore[no-untyped-call]
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()
            objectives.append(objective.detach())
        # Looked at once an epoch: reading a number at every step would make an accelerator wait.
        values = torch.stack(objectives).double().cpu()
        if not bool(torch.isfinite(values).all()):
            step = int((~torch.isfinite(values)).to(torch.int8).argmax())
            raise TrainingDiverged(number, step + 1, float(values[step]))
        for name, weight in self.model.named_parameters():
            if not bool(torch.isfinite(weight).all()):
                raise TrainingDiverged(number, len(objectives), math.nan, f"the weight {name}")
        return float(values.mean())

    def validation_loss(self, x: Tensor, y: Tensor) -> float:
        """Mean base loss of rows that are not trained on."""
        self.model.eval()
        with torch.inference_mode():
            parts = [
                self.loss_of(self.model(rows), true).double()
                for rows, true in zip(torch.split(x, 4096), torch.split(y, 4096), strict=True)
            ]
            return float(torch.cat(parts).mean())


def run_epochs(
    loop: Loop,
    train: tuple[Tensor, Tensor],
    held: tuple[Tensor, Tensor] | None,
    *,
    epochs: int,
    patience: int | None,
    checkpoint: Path | None,
    identity: dict[str, Any],
    progress: Callable[[Epoch], None] | None,
) -> LoopState:
    """Train to the end, or until `patience` epochs brought nothing; then the best epoch's weights are loaded.

    `identity` says what the training was started with; a checkpoint of another one is refused.

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
        loss = None
        if held is not None:
            loss = loop.validation_loss(*held)
            if not math.isfinite(loss):
                raise TrainingDiverged(number, -(-train[0].shape[0] // loop.batch_size), loss, "the validation loss")
        best = loss is not None and loss < state.best_loss
        if best and loss is not None:
            state.best_epoch, state.best_loss = number, loss
            state.best = copy_state(loop.model) if patience is not None else None
        record = Epoch(number, epochs, objective, loss, best, time.perf_counter() - started)
        state.history.append(record)
        if checkpoint is not None:
            write_checkpoint(checkpoint, _checkpoint(loop, state, identity))
        if progress is not None:
            progress(record)
    if state.best is not None:
        loop.model.load_state_dict(state.best)
    return state


def is_over(state: LoopState, patience: int | None) -> bool:
    """Whether the last `patience` epochs brought no lower validation loss."""
    return patience is not None and len(state.history) - state.best_epoch >= patience


def _checkpoint(loop: Loop, state: LoopState, identity: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        weights=copy_state(loop.model),
        best=state.best or {},
        optimizer=loop.optimizer.state_dict(),
        progress={
            "history": [asdict(epoch) for epoch in state.history],
            "best_epoch": state.best_epoch,
            "best_loss": state.best_loss if state.best_epoch else None,
        },
        identity=identity,
    )


def _restore(loop: Loop, path: Path, identity: dict[str, Any], epochs: int) -> LoopState:
    kept = read_checkpoint(path)
    check_identity(path, kept.identity, identity)
    loop.model.load_state_dict(kept.weights)
    loop.optimizer.load_state_dict(kept.optimizer)
    history = [Epoch(**{**record, "epochs": epochs}) for record in kept.progress["history"]]
    if len(history) > epochs:
        raise ValueError(f"epochs: {epochs}; allowed: at least the {len(history)} that {path} holds already")
    best_loss = kept.progress["best_loss"]
    return LoopState(
        history, kept.progress["best_epoch"], math.inf if best_loss is None else best_loss, kept.best or None
    )


def _batches(order: Tensor, size: int) -> Iterator[Tensor]:
    rows = order.shape[0]
    # A last batch of one row has no statistics for batch normalisation.
    end = rows - 1 if rows > size > 1 and rows % size == 1 else rows
    for start in range(0, end, size):
        stop = start + size
        yield order[start : rows if stop >= end else stop]
