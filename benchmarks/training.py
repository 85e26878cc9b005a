"""fit() on 50,000 x 30 rows, MLP 128-128, batch 256, two threads: against a bare torch loop, and against skorch.

All three train the same network from the same initial weights over the same tensors with AdamW for the same
epochs, in turn within each round; ratios are taken within rounds, and their medians reported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from softad.criteria import SoftAD
from softad.models import build_model
from softad.training import fit

RESULTS = Path(__file__).parent / "results"
MOST_OF_BARE, LEAST_SPEEDUP = 1.15, 2.0
RATE, DECAY, BATCH = 2e-3, 1e-4, 256


def network() -> nn.Module:
    return build_model("mlp", inputs=(30,), outputs=2, hidden=(128, 128), seed=0)


def bare(x: Tensor, y: Tensor, epochs: int, *, fused: bool = False) -> None:
    """What a careful person writes by hand: a permutation an epoch, slices of it, the mean loss."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY, fused=fused)
    loss_of = nn.CrossEntropyLoss()
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for batch in order.split(BATCH):
            loss = loss_of(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def bare_fused(x: Tensor, y: Tensor, epochs: int) -> None:
    """The same with the optimiser in one kernel, as fit() has it: what the loop itself costs."""
    bare(x, y, epochs, fused=True)


def ours(x: Tensor, y: Tensor, epochs: int) -> None:
    fit(network(), x, y, epochs=epochs, batch_size=BATCH, learning_rate=RATE, weight_decay=DECAY, threads=2)


def ours_softad(x: Tensor, y: Tensor, epochs: int) -> None:
    fit(
        network(), x, y, criterion=SoftAD(theta=0.2), epochs=epochs, batch_size=BATCH, learning_rate=RATE,
        weight_decay=DECAY, threads=2,
    )  # fmt: skip


def skorch(x: Tensor, y: Tensor, epochs: int) -> None:
    """With its progress lines and its validation split off, so that only training is timed."""
    from skorch import NeuralNetClassifier

    NeuralNetClassifier(
        network(), criterion=nn.CrossEntropyLoss, optimizer=torch.optim.AdamW, lr=RATE, optimizer__weight_decay=DECAY,
        max_epochs=epochs, batch_size=BATCH, iterator_train__shuffle=True, train_split=None, verbose=0,
    ).fit(x, y)  # fmt: skip


CONTENDERS: dict[str, Callable[[Tensor, Tensor, int], None]] = {
    "bare torch loop": bare,
    "bare torch loop, fused AdamW": bare_fused,
    "fit(), mean": ours,
    "fit(), SoftAD": ours_softad,
    "skorch": skorch,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(argv)
    torch.set_num_threads(2)
    drawn = torch.Generator().manual_seed(0)
    x = torch.randn(options.rows, 30, generator=drawn)
    y = (x[:, :3].sum(1) + torch.randn(options.rows, generator=drawn) > 1.0).long()

    for contender in CONTENDERS.values():  # imports, and the first allocations
        contender(x[:2_000], y[:2_000], 1)
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    names = list(CONTENDERS)
    for number in range(options.rounds):
        # Another order each round, so that none always follows the same neighbour.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = time.perf_counter()
            CONTENDERS[name](x, y, options.epochs)
            seconds[name].append(time.perf_counter() - started)

    def ratio(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))

    figures = {
        "seconds_per_epoch": {name: statistics.median(taken) / options.epochs for name, taken in seconds.items()},
        "fit_over_bare": ratio("fit(), mean", "bare torch loop"),
        "fit_over_bare_fused": ratio("fit(), mean", "bare torch loop, fused AdamW"),
        "softad_over_bare": ratio("fit(), SoftAD", "bare torch loop"),
        "skorch_over_fit": ratio("skorch", "fit(), mean"),
        "rounds": options.rounds, "rows": options.rows, "threads": 2, "torch": torch.__version__,
    }  # fmt: skip
    reached = {
        "fit_over_bare": figures["fit_over_bare"] <= MOST_OF_BARE,
        "fit_over_bare_fused": figures["fit_over_bare_fused"] <= MOST_OF_BARE,
        "softad_over_bare": figures["softad_over_bare"] <= MOST_OF_BARE,
        "skorch_over_fit": figures["skorch_over_fit"] >= LEAST_SPEEDUP,
    }
    table = Table(title=f"Training {options.rows:,} x 30, MLP 128-128, batch 256, two threads")
    for column in ("", "measured", "wanted", "reached"):
        table.add_column(column)
    for name, taken in figures["seconds_per_epoch"].items():
        table.add_row(f"{name}, s an epoch", f"{taken:.3f}", "", "")
    wanted = dict.fromkeys(reached, f"at most {MOST_OF_BARE}") | {"skorch_over_fit": f"at least {LEAST_SPEEDUP}"}
    for key, holds in reached.items():
        table.add_row(key.replace("_", " "), f"{figures[key]:.2f}", wanted[key], "yes" if holds else "NO")
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "training.json").write_text(json.dumps({**figures, "reached": reached}, indent=1) + "\n")
    return 0 if all(reached.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
