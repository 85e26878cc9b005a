"""Optimisers by name, and how many threads their steps may use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


def named_optimizer(
    name: str, weights: Sequence[Tensor], *, learning_rate: float, weight_decay: float, momentum: float
) -> torch.optim.Optimizer:
    """AdamW or SGD in one kernel a step.

    Parameters
    ----------
    name: "adamw" or "sgd".
    momentum: of "sgd".

    >>> type(named_optimizer("sgd", [torch.zeros(2)], learning_rate=0.1, weight_decay=0.0, momentum=0.9)).__name__
    'SGD'

    Raises
    ------
    ValueError: the name is unknown.
    """
    if name == "adamw":
        return torch.optim.AdamW(weights, lr=learning_rate, weight_decay=weight_decay, fused=True)
    if name == "sgd":
        return torch.optim.SGD(weights, lr=learning_rate, momentum=momentum, weight_decay=weight_decay, fused=True)
    raise ValueError(f'optimizer: {name!r}; allowed: "adamw", "sgd", or for `fit` a function of (parameters, rate)')


@contextmanager
def thread_count(count: int | None) -> Iterator[None]:
    """torch's thread count within, and as it was afterwards; None leaves it.

    >>> with thread_count(1):
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)
