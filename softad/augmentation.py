"""Changes of images that leave their class as it is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""A batch of features and a source of chance, to a changed batch of the same shape."""


def flip_and_shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip half of the images left to right and shift each by up to a sixteenth of its size, edges repeated.

    >>> flip_and_shift(torch.ones(2, 3, 16, 16), torch.Generator().manual_seed(0)).mean()
    tensor(1.)
    """
    n, _, height, width = images.shape
    flip = (torch.rand(n, generator=generator) < 0.5).to(images.device)
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    reach = max(1, height // 16), max(1, width // 16)
    down, right = (torch.randint(-r, r + 1, (n, 1), generator=generator).to(images.device) for r in reach)
    lines = (torch.arange(height, device=images.device) + down).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + right).clamp(0, width - 1)
    images = images.gather(2, lines[:, None, :, None].expand_as(images))
    return images.gather(3, columns[:, None, None, :].expand_as(images))


def augmentation(choice: bool | Augmentation, features: Tensor) -> Augmentation | None:
    """What to do to each batch: nothing for False, `flip_and_shift` for True, or the function that was given.

    >>> augmentation(False, torch.zeros(1, 2)) is None
    True

    Raises
    ------
    ValueError: True, and the features are no images.
    """
    if callable(choice):
        return choice
    if not choice:
        return None
    if features.ndim != 4:
        raise ValueError(f"augment: True with features of shape {tuple(features.shape)}; allowed: images (n, c, h, w)")
    return flip_and_shift
