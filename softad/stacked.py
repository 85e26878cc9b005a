"""Many small models trained at once, as one batched model: a step of a small model is overhead, not arithmetic.

What `softad.training.fit` does one by one (the same initial weights, permutations, objectives, early stopping), a
stack does for all of its pilots with one forward and one backward pass. The pilots of a stack share the network's
shape, the optimiser with its rates, and the batch size; they differ in criterion, seed, rows and training loss.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import stack_module_state

from softad.batches import batches_of, drawn_for
from softad.checkpoints import State
from softad.criteria import Criterion
from softad.optimizers import named_optimizer
from softad.row_losses import RowLoss, row_loss
from softad.stacked_network import StackedNetwork
from softad.stacked_objectives import StackedCriteria

KEPT_SHARE = 0.8
"""Models that are over leave the stack once no more than this share goes on."""

Build = Callable[[int], nn.Module]
"""From a seed to a network with fresh weights."""


@dataclass(frozen=True)
class Split:
    """Rows to train on and rows to stop by: features (n, ...), targets (n,), the same for validation."""

    features: Tensor
    targets: Tensor
    validation_features: Tensor
    validation_targets: Tensor


@dataclass(frozen=True)
class Pilot:
    """One model of a stack.

    Attributes
    ----------
    criterion: the objective.
    seed: of the initial weights and the permutations.
    split: which of the splits it is trained on.
    label_smoothing, focal: change the cross-entropy that is trained on, never the one that rows are judged by.
    class_weights: one number a class, or None; rows weigh accordingly.
    """

    criterion: Criterion
    seed: int = 0
    split: int = 0
    label_smoothing: float = 0.0
    focal: float = 0.0
    class_weights: tuple[float, ...] | None = None


@dataclass(frozen=True)
class PilotResult:
    """What became of a pilot.

    Attributes
    ----------
    pilot: as given.
    model: the network with the best epoch's weights (the last one's without patience), in evaluation mode, on the CPU.
    validation: mean base loss of the validation rows after each epoch, up to the one that ended the training.
    best_epoch: from 1.
    diverged: whether a loss was no finite number; the model is then of no use.
    theta: the level in use at the end, where the criterion is a `SoftAD`.
    """

    pilot: Pilot
    model: nn.Module
    validation: tuple[float, ...]
    best_epoch: int
    diverged: bool
    theta: float | None


@dataclass
class _Best:
    """Each model's best epoch so far."""

    figure: Tensor
    epoch: list[int]
    weights: State
    over: list[bool]


def train_stack(
    pilots: Sequence[Pilot],
    splits: Sequence[Split],
    build: Build,
    *,
    base_loss: str | RowLoss = "cross_entropy",
    epochs: int = 50,
    batch_size: int = 256,
    optimizer: str = "adamw",
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-4,
    momentum: float = 0.9,
    patience: int | None = None,
    device: str = "cpu",
    deadline: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[PilotResult]:
    """Train all pilots; each as `softad.training.fit` would by itself, up to rounding.

    Parameters
    ----------
    splits: of equal shapes.
    build: makes a network from a seed; no batch normalisation (its statistics are of one model, not of a stack).
    base_loss, epochs, batch_size, optimizer, learning_rate, weight_decay, momentum, patience: as for `fit`.
    deadline: of ``time.monotonic()``; no epoch is begun after it.
    progress: called with (epoch, epochs) after each.

    >>> from softad.criteria import Mean, SoftAD
    >>> from softad.models import build_model
    >>> x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    >>> rows = Split(x[:40], (x[:40, 0] > 0).long(), x[40:], (x[40:, 0] > 0).long())
    >>> trained = train_stack(
    ...     [Pilot(Mean()), Pilot(SoftAD(theta=0.2))], [rows],
    ...     lambda seed: build_model("linear", inputs=(2,), outputs=2, seed=seed), epochs=20, learning_rate=0.1)
    >>> [result.validation[-1] < 0.5 for result in trained]
    [True, True]

    Raises
    ------
    ValueError: no pilots, splits of different shapes, a network that cannot be stacked, or an argument out of range.
    """
    _check(pilots, splits, epochs, batch_size)
    networks = [build(pilot.seed) for pilot in pilots]
    network = StackedNetwork(networks[0], device)
    stacked, _ = stack_module_state(networks)
    weights = {name: value.detach().to(device).requires_grad_(True) for name, value in stacked.items()}
    optimizer_of = functools.partial(
        named_optimizer, optimizer, learning_rate=learning_rate, weight_decay=weight_decay, momentum=momentum
    )
    stepper = optimizer_of(list(weights.values()))
    criteria = StackedCriteria([pilot.criterion for pilot in pilots], device)
    rows = _Rows(pilots, splits, device)
    loss_of = _training_losses(pilots, row_loss(base_loss), device)
    plain = row_loss(base_loss)

    best = _Best(
        torch.full((len(pilots),), math.inf),
        [0] * len(pilots),
        {name: value.detach().clone() for name, value in weights.items()},
        [False] * len(pilots),
    )
    history: list[list[float]] = [[] for _ in pilots]
    levels: list[float | None] = [None] * len(pilots)
    alive = torch.arange(len(pilots))
    for number in range(1, epochs + 1):
        if deadline is not None and time.monotonic() >= deadline:
            break
        network.train()
        for index in rows.batches(number, batch_size):
            x, y, held = rows.take(index)
            losses = loss_of(network(weights, x, rows.shared), y)
            stepper.zero_grad()
            # A model's weights appear in its own losses only.
            losses.backward(criteria.pulls(losses, held))  # type: ignore[no-untyped-call]
            stepper.step()
        network.train(False)
        with torch.no_grad():
            means = rows.validation_means(functools.partial(network, weights), plain)
        criteria.observe(means)
        for model, mean, level in zip(alive.tolist(), means.tolist(), criteria.levels(), strict=True):
            if not best.over[model]:
                history[model].append(mean)
                levels[model] = level
        _keep_best(best, weights, alive, means, number, patience)
        if progress is not None:
            progress(number, epochs)
        going = torch.tensor([not best.over[model] for model in alive.tolist()])
        if not bool(going.any()):
            break
        # To take models out costs about a step; models that are over would cost a share of every further one.
        if int(going.sum()) <= KEPT_SHARE * going.numel():
            keep = torch.nonzero(going).flatten()
            alive = alive[keep]
            left = [pilots[model] for model in alive.tolist()]
            weights, stepper = _taken(weights, stepper, keep.to(device), optimizer_of)
            criteria = criteria.taken(keep)
            rows = rows.taken(left)
            loss_of = _training_losses(left, plain, device)
    if patience is None or not history[0]:
        best.weights = {name: value.detach() for name, value in weights.items()}
    return _results(pilots, networks, best, history, levels, early=patience is not None)


def _taken(
    weights: dict[str, Tensor],
    stepper: torch.optim.Optimizer,
    keep: Tensor,
    optimizer_of: Callable[[list[Tensor]], torch.optim.Optimizer],
) -> tuple[dict[str, Tensor], torch.optim.Optimizer]:
    """Weights and optimiser of some of the models, going on from where they are."""
    fewer = {name: value.detach()[keep].clone().requires_grad_(True) for name, value in weights.items()}
    following = optimizer_of(list(fewer.values()))
    for before, after in zip(weights.values(), fewer.values(), strict=True):
        following.state[after] = {
            name: value[keep].clone() if isinstance(value, Tensor) and value.shape == before.shape else value
            for name, value in stepper.state[before].items()
        }
    return fewer, following


class _Rows:
    """The rows of all pilots: shared where they see the same ones in the same order, else gathered a model."""

    def __init__(self, pilots: Sequence[Pilot], splits: Sequence[Split], device: str) -> None:
        self.device, self._splits = device, splits
        self.seeds = [pilot.seed for pilot in pilots]
        self.count = splits[0].features.shape[0]
        self.splits = torch.tensor([pilot.split for pilot in pilots], device=device)
        self.shared = len(set(self.seeds)) == 1 and len({pilot.split for pilot in pilots}) == 1
        self.x = torch.stack([split.features for split in splits]).to(device)
        self.y = torch.stack([split.targets for split in splits]).to(device)
        self.held_x = torch.stack([split.validation_features for split in splits]).to(device)
        self.held_y = torch.stack([split.validation_targets for split in splits]).to(device)
        self.weights: Tensor | None = None
        if any(pilot.class_weights is not None for pilot in pilots):
            # As many as the weights are for: a rare class may be missing from the rows.
            classes = max(len(pilot.class_weights or ()) for pilot in pilots)
            by_class = torch.tensor([pilot.class_weights or (1.0,) * classes for pilot in pilots], device=device)
            own = self.y[self.splits]
            self.weights = by_class.gather(1, own).to(self.x.dtype)

    def taken(self, pilots: Sequence[Pilot]) -> _Rows:
        """The rows of some of the pilots."""
        return _Rows(pilots, self._splits, self.device)

    def batches(self, epoch: int, size: int) -> list[Tensor]:
        """Row numbers of each batch: (B,) where shared, else (m, B)."""
        orders = {seed: torch.randperm(self.count, generator=drawn_for(seed, epoch)) for seed in set(self.seeds)}
        if self.shared:
            return [batch.to(self.device) for batch in batches_of(orders[self.seeds[0]], size)]
        together = torch.stack([orders[seed] for seed in self.seeds])
        ends = torch.arange(self.count)
        return [together[:, batch].to(self.device) for batch in batches_of(ends, size)]

    def take(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Features, targets and weights (m, B) of a batch; features (B, ...) where shared."""
        if self.shared:
            split = int(self.splits[0])
            held = None if self.weights is None else self.weights[:, index]
            return self.x[split, index], self.y[split, index].expand(len(self.seeds), -1), held
        where = self.splits[:, None]
        held = None if self.weights is None else self.weights.gather(1, index)
        return self.x[where, index], self.y[where, index], held

    def validation_means(self, outputs: Callable[[Tensor, bool], Tensor], plain: RowLoss) -> Tensor:
        """Mean base loss of each pilot's validation rows, shape (m,), on the CPU in double precision."""
        total = torch.zeros(len(self.seeds), dtype=torch.float64)
        rows = self.held_x.shape[1]
        for start in range(0, rows, 2048):
            part = slice(start, start + 2048)
            one = len(set(self.splits.tolist())) == 1
            x = self.held_x[int(self.splits[0]), part] if one else self.held_x[self.splits, part]
            losses = _flat(plain, outputs(x, one), self.held_y[self.splits, part])
            total += losses.double().sum(1).cpu()
        return total / rows


def _training_losses(pilots: Sequence[Pilot], plain: RowLoss, device: str) -> Callable[[Tensor, Tensor], Tensor]:
    smoothing = torch.tensor([[pilot.label_smoothing] for pilot in pilots], device=device)
    gamma = torch.tensor([[pilot.focal] for pilot in pilots], device=device)
    smooth, focal = bool((smoothing > 0).any()), bool((gamma > 0).any())

    def losses(outputs: Tensor, targets: Tensor) -> Tensor:
        base = _flat(plain, outputs, targets)
        if not smooth and not focal:
            return base
        changed = base
        if smooth:
            spread = -torch.log_softmax(outputs, dim=-1).mean(-1)
            changed = (1.0 - smoothing) * base + smoothing * spread
        if focal:
            # (1 - p)^gamma, and 1 for gamma 0: a power of 0 would have no derivative at p = 1.
            missing = -torch.expm1(-base)
            factor = torch.where(gamma > 0, missing.clamp_min(1e-12) ** gamma.clamp_min(1e-6), 1.0)
            changed = torch.where(gamma > 0, factor * base, changed)
        return changed

    return losses


def _flat(plain: RowLoss, outputs: Tensor, targets: Tensor) -> Tensor:
    """A base loss of stacked outputs (m, B, k) and targets (m, B), as (m, B)."""
    models, rows = outputs.shape[:2]
    flat = plain(outputs.reshape(models * rows, *outputs.shape[2:]), targets.reshape(models * rows))
    return flat.reshape(models, rows)


def _keep_best(
    best: _Best, weights: dict[str, Tensor], alive: Tensor, means: Tensor, number: int, patience: int | None
) -> None:
    """Note the best epoch of each model that is not over yet, `alive` being the models that `means` are of."""
    over = torch.tensor(best.over)[alive]
    better = (means < best.figure[alive]) & ~over
    which = alive[better]
    best.figure[which] = means[better].to(best.figure)
    for model in which.tolist():
        best.epoch[model] = number
    if patience is None:
        return
    if which.numel():
        for name, value in weights.items():
            place = which.to(value.device)
            best.weights[name][place] = value.detach()[better.to(value.device)]
    for model in alive.tolist():
        best.over[model] = number - best.epoch[model] >= patience


def _results(
    pilots: Sequence[Pilot],
    networks: list[nn.Module],
    best: _Best,
    history: list[list[float]],
    levels: list[float | None],
    *,
    early: bool,
) -> list[PilotResult]:
    found = []
    for number, (pilot, network) in enumerate(zip(pilots, networks, strict=True)):
        own = {name: value[number].detach().cpu().clone() for name, value in best.weights.items()}
        network.load_state_dict(own)
        whole = all(bool(torch.isfinite(value).all()) for value in own.values())
        found.append(
            PilotResult(
                pilot=pilot,
                model=network.eval(),
                validation=tuple(history[number]),
                best_epoch=best.epoch[number] if early or not history[number] else len(history[number]),
                diverged=not (all(map(math.isfinite, history[number])) and whole),
                theta=levels[number],
            )
        )
    return found


def _check(pilots: Sequence[Pilot], splits: Sequence[Split], epochs: int, batch_size: int) -> None:
    for name, value in (
        ("pilots", len(pilots)),
        ("splits", len(splits)),
        ("epochs", epochs),
        ("batch_size", batch_size),
    ):
        if value < 1:
            raise ValueError(f"{name}: {value}; allowed: 1 or more")
    shapes = {
        (s.features.shape, s.targets.shape, s.validation_features.shape, s.validation_targets.shape) for s in splits
    }
    if len(shapes) != 1:
        raise ValueError(f"splits: {len(shapes)} different shapes; allowed: the same number of rows in each")
    if any(not 0 <= pilot.split < len(splits) for pilot in pilots):
        raise ValueError(f"pilots: a split of {len(splits)} or more; allowed: below the number of splits")
