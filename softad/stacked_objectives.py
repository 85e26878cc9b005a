"""The criteria of many models at once: from losses (m, n), a line a model, to how strongly each row pulls.

The rows' pulls are the derivatives of the objectives by the losses, worked out by formula: of a stack's step, the
graph of a dozen small objectives and the way back through it would be a third.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from softad.criteria import (
    AUTO_SHARE,
    SMALLEST_AUTO_SIGMA,
    ChiSquareDRO,
    Criterion,
    CVaR,
    Flooding,
    IFlood,
    Mean,
    SoftAD,
    Tilted,
)
from softad.objectives import (
    chi_square_weights,
    cvar_threshold,
    cvar_weights,
    mean_of,
    rho_slope,
    shares_of,
    tilted_mean,
    tilted_weights,
)


class StackedCriteria:
    """Criteria of many models; those of one kind are worked out together.

    Each pull is divided by its criterion's scale, as `softad.training.fit` does with the step.

    >>> stacked = StackedCriteria([Mean(), SoftAD(theta=0.5), CVaR(0.5)])
    >>> stacked.pulls(torch.tensor([[1.0, 2.0], [0.5, 1.25], [1.0, 3.0]]))
    tensor([[0.5000, 0.5000],
            [0.0000, 0.3000],
            [0.0000, 1.0000]])

    Raises
    ------
    ValueError: a criterion of another kind than `softad.criteria` has.
    """

    def __init__(self, criteria: Sequence[Criterion], device: str = "cpu") -> None:
        members: dict[tuple[object, ...], list[int]] = {}
        for number, criterion in enumerate(criteria):
            over = criterion.transform if isinstance(criterion, SoftAD) else None
            # The mean is what SoftAD is laid over anyway, save where one scalar a batch is meant.
            key: tuple[object, ...] = (type(criterion), type(over), getattr(criterion, "reading", None))
            members.setdefault(key, []).append(number)
        self._count = len(criteria)
        self._groups = [_Group([criteria[n] for n in numbers], numbers, device) for numbers in members.values()]
        self._place = self._places()

    def pulls(self, losses: Tensor, weights: Tensor | None = None) -> Tensor:
        """Losses (m, n), and sample weights (m, n) or None, to the derivatives of each model's objective, (m, n)."""
        fixed = losses.detach()
        shares = shares_of(weights, fixed)
        if len(self._groups) == 1:
            return self._groups[0].pulls(fixed, shares)
        parts = [
            group.pulls(fixed[group.index], None if shares is None else shares[group.index]) for group in self._groups
        ]
        return torch.cat(parts)[self._place]

    def _places(self) -> Tensor:
        """Where each model's line is among those of the groups, one behind the other."""
        return torch.argsort(torch.cat([group.index for group in self._groups]))

    def taken(self, keep: Tensor) -> StackedCriteria:
        """The criteria of some of the models, in the order of `keep`, shape (k,), with what they have learnt.

        >>> StackedCriteria([SoftAD(theta=0.5), Mean(), SoftAD(theta=1.0)]).taken(torch.tensor([1, 2])).levels()
        [None, 1.0]
        """
        place = {int(model): number for number, model in enumerate(keep.tolist())}
        fewer = copy.copy(self)
        fewer._count = len(place)
        fewer._groups = [part for group in self._groups if (part := group.taken(place)) is not None]
        fewer._place = fewer._places()
        return fewer

    def observe(self, means: Tensor) -> None:
        """Mean validation losses (m,), on the CPU: what ``SoftAD(theta="auto")`` learns its level from."""
        for group in self._groups:
            group.observe(means)

    def levels(self) -> list[float | None]:
        """theta in use, of each model; None where the criterion is no `SoftAD`."""
        found: list[float | None] = [None] * self._count
        for group in self._groups:
            if group.kind is SoftAD:
                for number, level in zip(group.index.tolist(), group.theta.flatten().tolist(), strict=True):
                    found[number] = None if math.isnan(level) else level
        return found


class _Group:
    """Criteria of one kind, their parameters as columns."""

    def __init__(self, criteria: list[Criterion], numbers: list[int], device: str) -> None:
        self.index = torch.tensor(numbers, device=device)
        first = criteria[0]
        self.kind = type(first)
        self.over = first.transform if isinstance(first, SoftAD) else None
        self.reading = first.reading if isinstance(first, SoftAD) else "aggregate"
        inner = [c.transform if isinstance(c, SoftAD) and c.transform is not None else c for c in criteria]

        def column(of: Sequence[Criterion], name: str) -> Tensor:
            values = [getattr(one, name, math.nan) for one in of]
            # In single precision a level of 0.9 would miss the tenth row of ten.
            return torch.tensor(
                [[math.nan if value == "auto" else float(value)] for value in values],
                dtype=torch.float64,
                device=device,
            )

        self.level, self.radius, self.tilt = (column(inner, name) for name in ("level", "radius", "tilt"))
        self.theta = column(criteria, "theta").float()
        self.sigma = column(criteria, "sigma").float()
        soft = self.kind is SoftAD
        self.auto_theta = torch.isnan(self.theta) & soft
        self.auto_sigma = torch.isnan(self.sigma) & soft
        self.seen = torch.full_like(self.theta, math.nan)
        self.observed = torch.zeros_like(self.auto_theta)
        self.waiting = bool((self.auto_theta | self.auto_sigma).any())
        if self.kind not in (Mean, CVaR, ChiSquareDRO, Tilted, Flooding, IFlood, SoftAD):
            raise ValueError(f"criterion: {first!r}; allowed: one of softad.criteria")

    def taken(self, place: dict[int, int]) -> _Group | None:
        """Of the models in `place` only, which maps their present number to the new one; None where there are none."""
        own = [number for number, model in enumerate(self.index.tolist()) if model in place]
        if not own:
            return None
        fewer = copy.copy(self)
        rows = torch.tensor(own, device=self.index.device)
        fewer.index = torch.tensor([place[model] for model in self.index[rows].tolist()], device=self.index.device)
        for name in ("level", "radius", "tilt", "theta", "sigma", "auto_theta", "auto_sigma", "seen", "observed"):
            setattr(fewer, name, getattr(self, name)[rows])
        return fewer

    def pulls(self, losses: Tensor, shares: Tensor | None) -> Tensor:
        each: Tensor | float = 1.0 / losses.shape[-1] if shares is None else shares
        if self.kind is Flooding:
            side = torch.sign(mean_of(losses, shares)[:, None] - self.level.to(losses.dtype))
            return side.expand_as(losses) * each
        if self.kind is IFlood:
            return torch.sign(losses - self.theta) * each
        if self.kind is not SoftAD:
            return self._weights(self.kind, losses, shares)
        if self.waiting:
            self._see(losses.mean(-1, keepdim=True))
            self.waiting = False
        theta, sigma = self.theta, self.sigma
        if self.over is None:
            return rho_slope((losses - theta) / sigma) * each
        if self.reading == "aggregate":
            worst = self._weights(type(self.over), losses, shares)
            tilted = isinstance(self.over, Tilted)
            inside = tilted_mean(losses, self.tilt, shares) if tilted else (worst * losses).sum(-1)
            return rho_slope((inside[:, None] - theta) / sigma) * worst
        if isinstance(self.over, CVaR):
            above = losses - cvar_threshold(losses, self.level, shares)[..., None]
            tail = (1.0 - self.level).to(losses.dtype)
            lifted = losses - above + torch.relu(above) / tail
            return rho_slope((lifted - theta) / sigma) * (above > 0) * each / tail
        return rho_slope((losses - theta) / sigma) * self._weights(type(self.over), losses, shares)

    def observe(self, means: Tensor) -> None:
        new = means[self.index.cpu()].to(self.theta)[:, None]
        better = torch.isfinite(new) & (~self.observed | (new < self.seen))
        self._see(torch.where(better, new, self.seen))
        self.observed |= better

    def _see(self, means: Tensor) -> None:
        self.seen = means
        self.theta = torch.where(self.auto_theta, AUTO_SHARE * means, self.theta)
        self.sigma = torch.where(self.auto_sigma, means.clamp_min(SMALLEST_AUTO_SIGMA), self.sigma)

    def _weights(self, kind: type, losses: Tensor, shares: Tensor | None) -> Tensor:
        if kind is CVaR:
            return cvar_weights(losses, self.level, shares)
        if kind is ChiSquareDRO:
            return chi_square_weights(losses, self.radius, shares)
        if kind is Tilted:
            return tilted_weights(losses, self.tilt, shares)
        return torch.full_like(losses, 1.0 / losses.shape[-1]) if shares is None else shares
