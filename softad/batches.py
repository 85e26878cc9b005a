"""Which rows make up which batch: one permutation an epoch, drawn from the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def drawn_for(seed: int, epoch: int) -> torch.Generator:
    """The generator of an epoch's permutation, and of augmentation after it: no state has to be kept between epochs.

    >>> torch.equal(torch.randperm(9, generator=drawn_for(0, 1)), torch.randperm(9, generator=drawn_for(0, 1)))
    True
    """
    return torch.Generator().manual_seed((seed * 2_000_029 + epoch) % 2**63)


def batches_of(order: Tensor, size: int) -> Iterator[Tensor]:
    """Rows in the order given, `size` at a time; a single row left over joins the batch before it.

    >>> [batch.tolist() for batch in batches_of(torch.arange(7), 3)]
    [[0, 1, 2], [3, 4, 5, 6]]
    """
    rows = order.shape[0]
    # A last batch of one row has no statistics for batch normalisation.
    end = rows - 1 if rows > size > 1 and rows % size == 1 else rows
    for start in range(0, end, size):
        stop = start + size
        yield order[start : rows if stop >= end else stop]
