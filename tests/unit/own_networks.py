"""Networks as a plant brings them: one that ONNX can express, and one whose way depends on the rows."""

from __future__ import annotations

from torch import Tensor, nn

NAME = __name__


def good(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs[0], 4), nn.Tanh(), nn.Linear(4, outputs))


class Wayward(nn.Module):
    def __init__(self, inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs[0], outputs)

    def forward(self, rows: Tensor) -> Tensor:
        result: Tensor = self.layer(rows) if rows.sum().item() > 0 else self.layer(-rows)
        return result


def wayward(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    return Wayward(inputs, outputs)
