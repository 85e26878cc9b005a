"""Sharpness-aware training, for comparison: optimisers that take the gradient at perturbed weights.

`SAM` and `SharpDRO` wrap any torch optimiser whose step needs no closure, and are torch optimisers themselves:
parameter groups, state and defaults are the wrapped one's own objects, so schedulers, checkpoints and frameworks
that hand a closure to ``step`` (skorch, Lightning) work on them as on the wrapped optimiser.

Gradient scalers (16-bit training) and wrappers that sum gradients over processes are not supported.

References
----------
Foret, Kleiner, Mobahi and Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving Generalization",
ICLR 2021; Huang et al., "Robust Generalization against Photon-Limited Corruptions via Worst-Case Sharpness
Minimization", CVPR 2023.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

# Keeps the perturbation finite for the smallest gradients; Foret et al.'s code has the same number.
_TINY = 1e-12

# One tensor for each parameter; None where the loss does not depend on it.
_Gradient = Sequence[Tensor | None]


class _Wrapper(Optimizer):
    """What both optimisers share: the wrapped optimiser's groups and state, and passes at other weights."""

    # What a copy or a pickle carries beside the wrapped optimiser; torch's own would drop it.
    _carried: tuple[str, ...] = ("base_optimizer", "radius", "model")

    def __init__(self, base_optimizer: Optimizer, radius: float, model: nn.Module | None) -> None:
        if not isinstance(base_optimizer, Optimizer) or isinstance(base_optimizer, LBFGS | _Wrapper):
            raise ValueError(f"base_optimizer: {type(base_optimizer).__name__}; allowed: one without closures")
        if not 0.0 <= radius < math.inf:
            raise ValueError(f"radius: {radius!r}; allowed: [0, inf)")
        super().__init__(base_optimizer.param_groups, base_optimizer.defaults)
        self.base_optimizer, self.radius, self.model = base_optimizer, radius, model
        self._link()

    def _link(self) -> None:
        self.param_groups, self.state = self.base_optimizer.param_groups, self.base_optimizer.state

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, **{name: getattr(self, name) for name in self._carried}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._link()

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimiser's state, which it can load by itself too."""
        return self.base_optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, here or on the wrapped optimiser alone."""
        self.base_optimizer.load_state_dict(state_dict)
        self._link()

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    @contextmanager
    def _perturbed(self, parameters: list[Tensor], direction: list[Tensor], norm: float) -> Iterator[None]:
        """The weights are ``w + radius * direction / norm`` within, and afterwards w bit for bit, buffers included."""
        weights = [p.detach().clone() for p in parameters]
        buffers = _buffers(self.model)
        try:
            with torch.no_grad():
                torch._foreach_add_(parameters, direction, alpha=self.radius / (norm + _TINY))
            yield
        finally:
            # Subtracting what was added would leave rounding errors.
            with torch.no_grad():
                torch._foreach_copy_(parameters, weights)
                for module, name, buffer, value in buffers:
                    buffer.copy_(value)
                    module._buffers[name] = buffer


class SAM(_Wrapper):
    """Sharpness-aware minimisation: a step along the gradient at ``w + radius * g / (||g|| + 1e-12)``.

    g is the gradient of the closure's loss at the weights w, and ``||g||`` its Euclidean norm over all parameter
    groups together. The weights are put back bit for bit before the wrapped optimiser steps. Where g is 0, or
    `radius` is, nothing is perturbed and the second pass is left out: the step is the wrapped optimiser's own.

    Parameters
    ----------
    base_optimizer: any torch optimiser whose step needs no closure; the parameters are the ones it holds.
    radius: length of the perturbation in the space of all weights; 0 or more. May be changed between steps.
    model: the module whose buffers the second pass must leave alone, such as the running statistics of batch
        normalisation (``running_mean``, ``running_var``, ``num_batches_tracked``): after a step they are those of
        one ordinary pass, bit for bit. None: the second pass updates them again.

    Random layers draw afresh in the second pass (dropout has another mask), as in the common torch code for SAM; for
    the same mask the closure must seed the generator itself. ValueError: an argument is out of its range.

    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), radius=0.05, model=model)
    >>> x, y = torch.eye(3), torch.tensor([[1.0], [2.0], [3.0]])
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = (model(x) - y).square().mean()
    ...     loss.backward()
    ...     return loss
    >>> losses = [optimizer.step(closure).item() for _ in range(50)]
    >>> losses[-1] < 0.1 * losses[0]
    True
    """

    def __init__(self, base_optimizer: Optimizer, *, radius: float = 0.05, model: nn.Module | None = None) -> None:
        super().__init__(base_optimizer, radius, model)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Two passes and one step of the wrapped optimiser.

        The closure runs forward and backward, and returns the loss. It may set the gradients to zero first, as torch's
        closures do; `step` does so before each pass in any case, so gradients gathered earlier do not count. What it
        returned in the first pass, at the weights as they were, is returned.

        Raises
        ------
        ValueError: no closure; it gave no parameter a gradient; a gradient is sparse.
        FloatingPointError: the gradient's norm is not finite. The weights are as before. (A gradient of the second
            pass that is not finite goes to the wrapped optimiser, as without SAM.)
        """
        if closure is None:
            raise ValueError("closure: None; allowed: a function that runs forward and backward and returns the loss")
        loss = self._pass(closure)
        if self.radius > 0.0:
            parameters = [p for p in self._parameters() if p.grad is not None]
            gradient = [p.grad for p in parameters if p.grad is not None]
            if not gradient:
                raise ValueError("closure: no parameter has a gradient after it; allowed: one that calls backward()")
            norm = _norm(gradient)
            if norm > 0.0:
                with self._perturbed(parameters, gradient, norm):
                    self._pass(closure)
        self.base_optimizer.step()
        return loss

    def _pass(self, closure: Callable[[], Any]) -> Any:
        for parameter in self._parameters():
            parameter.grad = None
        with torch.enable_grad():
            return closure()


class SharpDRO(_Wrapper):
    """Group weights that grow with the groups' losses, and a gradient taken where each group's loss is worst nearby.

    With ``L_k`` the mean loss of the batch's rows in group k and ``g_k`` its gradient at the weights w, the group's
    sharpness is ``R_k = L_k(w + e_k) - L_k(w)`` at ``e_k = radius * g_k / (||g_k|| + 1e-12)``. One step sets
    ``p_k <- p_k * exp(step_size * L_k(w))``, normalised, and then descends on
    ``sum_k p_k (L_k + R_k) = sum_k p_k L_k(w + e_k)``, with the gradient of ``L_k`` at ``w + e_k`` (first order: not
    through ``e_k``). The weights are put back bit for bit before the wrapped optimiser steps. Radius 0 is group DRO
    (Sagawa et al., ICLR 2020); one group and radius 0 is ERM.

    With K groups in a batch a step costs 1 + K forward and 2 K backward passes, and holds K gradients.

    Parameters
    ----------
    base_optimizer: any torch optimiser whose step needs no closure; the parameters are the ones it holds.
    groups: how many groups there are, 1 or more; `severity_bins` makes some.
    radius: length of each group's perturbation in the space of all weights; 0 or more.
    step_size: of the group weights, 0 or more; 0 keeps them uniform.
    model: the module whose buffers (running statistics) are as after one ordinary pass; None: not looked after.

    Notes
    -----
    Differences from the code that the authors published with the paper (distribution-aware training):

    - One perturbation for each group. Theirs is one for the batch, along the gradient of the mean loss, with which
      one second pass is enough, but where the batch's easy rows choose the direction for the hard ones.
    - The gradient is that of the objective above. Theirs adds up the unweighted mean loss's gradient at w and
      ``sum_k p_k grad L_k`` at the perturbed weights.
    - The weights of groups that a batch lacks stay exactly as they are, and the others share what they had
      together. There, a missing group counts as one with loss 0, so it loses weight for being rare.
    - As there, p grows with the loss at w, not with the sharpness, before it weighs the gradient, and a missing
      group adds nothing to the objective, whose weights then sum to less than 1.

    The paper's other setting, without groups, is not here. ValueError: an argument is out of its range.

    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = SharpDRO(torch.optim.SGD(model.parameters(), lr=0.05), groups=2, step_size=0.1)
    >>> x, y, groups = torch.eye(3), torch.tensor([0.0, 0.0, 9.0]), torch.tensor([0, 0, 1])
    >>> for _ in range(10):
    ...     loss = optimizer.step(lambda: (model(x).squeeze(1) - y).square(), groups)
    >>> bool(optimizer.group_weights[1] > 0.9)
    True
    """

    _carried = (*_Wrapper._carried, "groups", "step_size", "_log_weights")

    def __init__(
        self,
        base_optimizer: Optimizer,
        *,
        groups: int,
        radius: float = 0.05,
        step_size: float = 0.01,
        model: nn.Module | None = None,
    ) -> None:
        if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
            raise ValueError(f"groups: {groups!r}; allowed: an integer, 1 or more")
        if not 0.0 <= step_size < math.inf:
            raise ValueError(f"step_size: {step_size!r}; allowed: [0, inf)")
        super().__init__(base_optimizer, radius, model)
        self.groups = groups
        self.step_size = step_size
        # Logarithms, on the CPU: a weight that underflowed could never grow again, and not every device has float64.
        self._log_weights = torch.full((groups,), -math.log(groups), dtype=torch.float64)

    @property
    def group_weights(self) -> Tensor:
        """The weights p, shape ``(groups,)``, float64, sums to 1: uniform at first, and kept by `state_dict`."""
        return self._log_weights.exp()

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimiser's state, and beside it the logarithms of the group weights."""
        return {**super().state_dict(), "log_group_weights": self._log_weights.clone()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned; ValueError where it has no group weights, or of another number of groups."""
        rest = dict(state_dict)
        found = rest.pop("log_group_weights", torch.empty(0))
        if found.shape != (self.groups,):
            raise ValueError(f"state_dict: {found.numel()} log_group_weights; allowed: {self.groups}")
        super().load_state_dict(rest)
        self._log_weights = found.detach().to("cpu", torch.float64, copy=True)

    def step(  # type: ignore[override]
        self, closure: Callable[[], Tensor] | None = None, groups: Tensor | None = None
    ) -> Tensor:
        """One step of the group weights and of the wrapped optimiser.

        The closure runs forward, without backward, and returns the rows' losses, shape ``(n,)``; it is called again at
        every perturbed point, and must give the same rows in the same order. `groups`, shape ``(n,)``, are the rows'
        groups, integers in ``[0, self.groups)``. Gradients from before are replaced. Returned is the rows' mean loss
        at the weights as they were, shape ``()``, without a graph.

        Raises
        ------
        ValueError: no closure or groups; a wrong shape or type; a group out of range; a loss that is not finite (the
            message names the row); a gradient that is sparse.
        FloatingPointError: a group's gradient has a norm that is not finite. Model and group weights are as before.
        """
        if closure is None or groups is None:
            raise ValueError("closure, groups: None; allowed: a function that returns row losses, and the rows' groups")
        losses = _row_losses(closure)
        present, codes, counts = self._present(groups, losses)
        means = losses.new_zeros(counts.shape).index_add(0, codes, losses) / counts
        values = means.detach().cpu().double()
        if not bool(torch.isfinite(values).all()):
            row = int((~torch.isfinite(losses.detach())).to(torch.int8).argmax())
            raise ValueError(f"closure: row {row} has loss {losses[row].item()}; allowed: finite losses")
        updated = self._updated(present, values)
        shares = updated[present].exp()
        parameters = [p for p in self._parameters() if p.requires_grad]
        if self.radius == 0.0:
            objective = (shares.to(means) * means).sum()
            total: list[Tensor | None] = list(torch.autograd.grad(objective, parameters, allow_unused=True))
        else:
            own = [
                torch.autograd.grad(mean, parameters, allow_unused=True, retain_graph=k + 1 < len(means))
                for k, mean in enumerate(means)
            ]
            # All are checked before anything changes.
            norms = [_norm([g for g in gradient if g is not None]) for gradient in own]
            total = [None] * len(parameters)
            for k, (gradient, norm) in enumerate(zip(own, norms, strict=True)):
                there = self._moved(closure, codes == k, parameters, gradient, norm) if norm > 0.0 else gradient
                total = [_plus(t, g, float(shares[k])) for t, g in zip(total, there, strict=True)]
        for parameter, summed in zip(parameters, total, strict=True):
            parameter.grad = summed
        self._log_weights = updated
        self.base_optimizer.step()
        return losses.detach().mean()

    def _present(self, groups: Tensor, losses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The groups in the batch (on the CPU); each row's position among them, and their rows (beside the losses)."""
        if groups.shape != losses.shape:
            raise ValueError(f"groups: shape {tuple(groups.shape)}; allowed: {tuple(losses.shape)}, as the losses")
        if groups.is_floating_point() or groups.is_complex() or groups.dtype == torch.bool:
            raise ValueError(f"groups: dtype {groups.dtype}; allowed: an integer type")
        found, codes, counts = torch.unique(groups, return_inverse=True, return_counts=True)
        present = found.cpu().long()
        if int(present[0]) < 0 or int(present[-1]) >= self.groups:
            raise ValueError(f"groups: from {int(present[0])} to {int(present[-1])}; allowed: [0, {self.groups})")
        return present, codes.to(losses.device), counts.to(losses.device)

    def _updated(self, present: Tensor, values: Tensor) -> Tensor:
        """The logarithms of the group weights after losses `values` of the groups `present`."""
        before = self._log_weights[present]
        grown = before + self.step_size * values
        updated = self._log_weights.clone()
        updated[present] = grown + (before.logsumexp(0) - grown.logsumexp(0))
        if present.numel() == self.groups:
            updated -= updated.logsumexp(0)  # or rounding errors add up over a long training
        return updated

    def _moved(
        self, closure: Callable[[], Tensor], rows: Tensor, parameters: list[Tensor], along: _Gradient, norm: float
    ) -> _Gradient:
        """The gradient of the mean loss of `rows` at the weights moved along `along`."""
        moved = [(p, g) for p, g in zip(parameters, along, strict=True) if g is not None]
        with self._perturbed([p for p, _ in moved], [g for _, g in moved], norm):
            losses = _row_losses(closure)
            if losses.shape != rows.shape:
                raise ValueError(f"closure: {losses.numel()} rows at the perturbed weights; allowed: {rows.numel()}")
            return torch.autograd.grad(losses[rows].mean(), parameters, allow_unused=True)


def severity_bins(severity: npt.ArrayLike, bins: int) -> npt.NDArray[np.int64]:
    """Group numbers from a numeric severity: quantile bins of nearly equal size, equal severities kept together.

    A row's bin is that of the middle of its ties' ranks: ``floor(bins * (below + ties / 2) / n)``; empty bins are
    left out of the numbering. Make the groups once, from the column of all training rows, not batch by batch.

    Parameters
    ----------
    severity: shape (n,), finite numbers; more is more severe.
    bins: how many bins at most, 1 or more. Where ties are long there are fewer.

    Returns
    -------
    Shape (n,): 0 for the mildest rows up to (number of groups) - 1, none left out.

    >>> severity_bins([0, 0, 0, 0, 0, 0, 1, 1, 2, 5], bins=4).tolist()
    [0, 0, 0, 0, 0, 0, 1, 1, 2, 2]

    Raises
    ------
    ValueError: `severity` empty, not one-dimensional or not finite; `bins` below 1.
    """
    data = np.asarray(severity, dtype=np.float64)
    if data.ndim != 1 or data.size == 0:
        raise ValueError(f"severity: shape {data.shape}; allowed: (n,) with n >= 1")
    if not np.isfinite(data).all():
        row = int((~np.isfinite(data)).argmax())
        raise ValueError(f"severity: {data[row]} at row {row}; allowed: finite numbers")
    if bins < 1:
        raise ValueError(f"bins: {bins!r}; allowed: 1 or more")
    _, value, ties = np.unique(data, return_inverse=True, return_counts=True)
    # Twice the middle rank, so that the division is exact.
    middle = 2 * (np.cumsum(ties) - ties) + ties
    _, number = np.unique(bins * middle // (2 * data.size), return_inverse=True)
    return np.asarray(number[value], dtype=np.int64)


def _row_losses(closure: Callable[[], Tensor]) -> Tensor:
    with torch.enable_grad():
        losses = closure()
    if losses.ndim != 1 or losses.shape[0] == 0:
        raise ValueError(f"closure: losses of shape {tuple(losses.shape)}; allowed: (n,) with n >= 1, one loss a row")
    if not losses.requires_grad:
        raise ValueError("closure: losses without a graph; allowed: losses that depend on the parameters")
    return losses


def _plus(total: Tensor | None, gradient: Tensor | None, weight: float) -> Tensor | None:
    if gradient is None:
        return total
    return gradient * weight if total is None else total.add_(gradient, alpha=weight)


def _buffers(model: nn.Module | None) -> list[tuple[nn.Module, str, Tensor, Tensor]]:
    return [
        (module, name, buffer, buffer.clone())
        for module in (() if model is None else model.modules())
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]


def _norm(gradient: list[Tensor]) -> float:
    """The Euclidean norm over all tensors; 0 for none."""
    if not gradient:  # the foreach functions refuse an empty list
        return 0.0
    if any(g.is_sparse for g in gradient):
        raise ValueError("gradient: sparse; allowed: dense gradients (an embedding with sparse=False)")
    # In 16 bits the squares of ordinary gradients overflow.
    wide = [g.float() if g.dtype in (torch.float16, torch.bfloat16) else g for g in gradient]
    parts = torch._foreach_norm(wide)
    norm = math.hypot(*torch.stack([part.to(parts[0].device, parts[0].dtype) for part in parts]).tolist())
    if not math.isfinite(norm):
        raise FloatingPointError(f"gradient: norm {norm}; allowed: finite; a smaller learning rate may help")
    return norm
