"""Learning rates over a training: from the number of an epoch to a factor on the rate that was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

Schedule = Callable[[int, int], float]
"""From an epoch's number, from 1, and the number of epochs, to a factor on the learning rate."""


def cosine(epoch: int, epochs: int) -> float:
    """Half a cosine from 1 towards 0 (Loshchilov and Hutter, ICLR 2017, equation 5, without restarts).

    >>> [round(cosine(epoch, 4), 2) for epoch in (1, 2, 3, 4)]
    [1.0, 0.85, 0.5, 0.15]
    """
    return 0.5 * (1.0 + math.cos(math.pi * (epoch - 1) / epochs))


def step(epoch: int, epochs: int) -> float:
    """1, a tenth after half of the epochs, and a hundredth after three quarters.

    >>> [step(epoch, 8) for epoch in (1, 4, 5, 6, 7, 8)]
    [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    """
    done = (epoch - 1) / epochs
    return 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01


BY_NAME: dict[str, Schedule] = {"cosine": cosine, "step": step}


def rate_factors(schedule: str | Schedule | None, warmup: int, epochs: int) -> tuple[float, ...] | None:
    """The factor of every epoch, or None where the rate stays as it is.

    In the first `warmup` epochs the schedule's factor is multiplied by ``epoch / (warmup + 1)``, so that the epoch
    after them is the first with the whole rate.

    >>> [round(factor, 2) for factor in rate_factors("cosine", 1, 4)]
    [0.5, 0.85, 0.5, 0.15]

    Raises
    ------
    ValueError: `schedule` or `warmup` is out of its range, or a factor is negative or not finite.
    """
    if warmup < 0:
        raise ValueError(f"warmup: {warmup!r}; allowed: 0 or more")
    if schedule is not None and not callable(schedule) and schedule not in BY_NAME:
        raise ValueError(f"schedule: {schedule!r}; allowed: None, {', '.join(BY_NAME)}, or a function of two numbers")
    if schedule is None and warmup == 0:
        return None
    chosen = BY_NAME[schedule] if isinstance(schedule, str) else schedule
    factors = []
    for epoch in range(1, epochs + 1):
        factor = 1.0 if chosen is None else float(chosen(epoch, epochs))
        if not 0.0 <= factor < math.inf:
            raise ValueError(f"schedule: factor {factor!r} in epoch {epoch} of {epochs}; allowed: [0, inf)")
        factors.append(factor * min(1.0, epoch / (warmup + 1)))
    return tuple(factors)


def scale_rates(optimizer: torch.optim.Optimizer, rates: list[float], factor: float) -> None:
    """Set each parameter group's learning rate to its own of `rates` times `factor`.

    >>> optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
    >>> scale_rates(optimizer, [0.1], 0.5)
    >>> optimizer.param_groups[0]["lr"]
    0.05
    """
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate * factor)
        else:
            group["lr"] = rate * factor
