"""Rows and a network that several tests of training share."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from softad.models import build_model


def three_classes(rows: int = 160, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4)).astype(np.float32)
    score = x[:, 0] - x[:, 1] + noise * rng.normal(size=rows)
    return x, np.digitize(score, [0.5, 1.8]).astype(np.int64)  # the last class is rare


HELD = three_classes(120, seed=1)


def mlp(outputs: int = 3) -> nn.Module:
    return build_model("mlp", inputs=(4,), outputs=outputs, hidden=(16,), seed=0)


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
