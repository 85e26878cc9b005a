"""What the objectives cost against ERM, and what exact thresholds and stacked pilots save; two threads.

Each line compares two ways in turn within each round; the figure is the median of the rounds' ratios. The baseline
of a step is ``cross_entropy(reduction="none").mean()`` with SGD.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from softad.criteria import ChiSquareDRO, CVaR, Flooding, IFlood, Mean, SoftAD, Tilted
from softad.figures import three_figures
from softad.models import build_model
from softad.sharpness import SAM
from softad.stacked import Pilot, Split, train_stack
from softad.training import fit

RESULTS = Path(__file__).parent / "results"
Step = Callable[[], object]


def network(model: str) -> nn.Module:
    hidden = (128, 128) if model == "mlp" else ()
    return build_model(model, inputs=(30,), outputs=7, hidden=hidden, seed=0)


def stepper(model: str, batch: int, objective: Callable[[Tensor], Tensor], sharp: bool = False) -> Step:
    """One training step on fixed rows."""
    drawn = torch.Generator().manual_seed(0)
    x, y = torch.randn(batch, 30, generator=drawn), torch.randint(0, 7, (batch,), generator=drawn)
    trained = network(model)
    plain = torch.optim.SGD(trained.parameters(), lr=0.01, momentum=0.9, fused=True)
    optimizer = SAM(plain, radius=0.05) if sharp else plain

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective(cross_entropy(trained(x), y, reduction="none"))
        loss.backward()
        return loss

    def ordinary() -> None:
        closure()
        optimizer.step()

    return (lambda: optimizer.step(closure)) if sharp else ordinary


def ratio(one: Step, other: Step, *, rounds: int, repeats: int) -> float:
    """Median over rounds of the time of `one` against `other`, each repeated within a round."""
    for step in (one, other):
        for _ in range(max(3, repeats // 10)):
            step()
    found = []
    for number in range(rounds):
        seconds = {}
        for step in (one, other) if number % 2 else (other, one):
            started = time.perf_counter()
            for _ in range(repeats):
                step()
            seconds[step] = time.perf_counter() - started
        found.append(seconds[one] / seconds[other])
    return statistics.median(found)


def by_bisection(losses: Tensor, radius: float) -> Tensor:
    """The chi-square objective as it is usually programmed: t by bisection to 1e-6, then through the formula."""
    growth = 1.0 + 2.0 * radius
    fixed = losses.detach()
    low, high = float(fixed.min()) - float(fixed.max() - fixed.min()) * growth - 1.0, float(fixed.max())
    while high - low > 1e-6:
        middle = 0.5 * (low + high)
        above = torch.relu(fixed - middle)
        slope = 1.0 - growth**0.5 * above.mean() / above.square().mean().sqrt().clamp_min(1e-30)
        low, high = (low, middle) if slope > 0 else (middle, high)
    t = 0.5 * (low + high)
    return t + (growth * torch.relu(losses - t).square().mean()).sqrt()


def chi_square(rows: int, rounds: int) -> tuple[float, float]:
    """How many times faster than bisection, forward and backward; and the largest relative difference of values."""
    losses = torch.distributions.Gamma(0.5, 1.0).sample((rows,)).requires_grad_(True)
    criterion = ChiSquareDRO(0.5)

    def ours() -> None:
        torch.autograd.grad(criterion(losses), losses)

    def theirs() -> None:
        torch.autograd.grad(by_bisection(losses, 0.5), losses)

    value, other = (float(way.detach()) for way in (criterion(losses), by_bisection(losses, 0.5)))
    return ratio(theirs, ours, rounds=rounds, repeats=20), abs(value - other) / abs(other)


def pilots(rounds: int) -> tuple[float, float]:
    """24 pilots of one epoch stacked, against `fit` one after the other; largest relative difference of losses."""
    drawn = torch.Generator().manual_seed(0)
    x = torch.randn(6000, 30, generator=drawn)
    y = (x[:, :3].sum(1) + torch.randn(6000, generator=drawn) > 1.0).long()
    split = Split(x[:5000], y[:5000], x[5000:], y[5000:])
    make = [
        *[lambda t=t: SoftAD(t) for t in (0.0125, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)],
        *[lambda t=t: SoftAD(t, 0.1) for t in (0.05, 0.1, 0.2, 0.4)],
        Mean, *[lambda b=b: CVaR(b) for b in (0.3, 0.5, 0.9)], *[lambda r=r: ChiSquareDRO(r) for r in (0.1, 0.5, 5.0)],
        lambda: Tilted(1.0), lambda: Flooding(0.1), lambda: IFlood(0.1), lambda: SoftAD("auto"),
        lambda: SoftAD(0.1, transform=CVaR(0.5)),
    ]  # fmt: skip

    def build(seed: int) -> nn.Module:
        return build_model("mlp", inputs=(30,), outputs=2, hidden=(64, 64), seed=seed)

    found: dict[str, list[float]] = {}

    def stacked() -> None:
        results = train_stack(
            [Pilot(one()) for one in make],
            [split],
            build,
            epochs=1,
            batch_size=100,
            optimizer="sgd",
            learning_rate=0.03,
        )
        found["stacked"] = [result.validation[-1] for result in results]

    def one_by_one() -> None:
        found["single"] = []
        for one in make:
            result = fit(
                build(0), x[:5000], y[:5000], criterion=one(), validation=(x[5000:], y[5000:]), epochs=1,
                batch_size=100, optimizer="sgd", learning_rate=0.03, weight_decay=1e-4, calibrate=False,
            )  # fmt: skip
            found["single"].append(float(result.history[-1].validation or 0.0))

    faster = ratio(one_by_one, stacked, rounds=rounds, repeats=1)
    apart = max(abs(a / b - 1.0) for a, b in zip(found["stacked"], found["single"], strict=True))
    return faster, apart


def bootstrap_seconds() -> float:
    """1,000 resamples of the three figures of 100,000 rows; median of three."""
    losses = np.random.default_rng(0).gamma(0.5, 1.0, 100_000)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        three_figures(losses, resamples=1000)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=41)
    options = parser.parse_args(argv)
    torch.set_num_threads(2)
    rounds, mean, soft = options.rounds, Mean(), SoftAD(0.2)
    steps: list[tuple[str, str, int, Callable[[Tensor], Tensor], bool, float]] = [
        ("SoftAD step, MLP 30-128-128-7, batch 256", "mlp", 256, soft, False, 1.05),
        ("SoftAD step, MLP 30-128-128-7, batch 1024", "mlp", 1024, soft, False, 1.05),
        ("SoftAD step, linear, batch 256", "linear", 256, soft, False, 1.15),
        ("CVaR step, MLP, batch 256", "mlp", 256, CVaR(0.9), False, 1.15),
        ("SAM step, MLP, batch 256", "mlp", 256, mean, True, 2.25),
    ]
    lines: list[tuple[str, float, str, float, bool]] = []
    for name, model, batch, objective, sharp, most in track(steps, "training steps", transient=True):
        base = stepper(model, batch, lambda losses: losses.mean())
        reached = ratio(stepper(model, batch, objective, sharp), base, rounds=rounds, repeats=40)
        lines.append((f"{name}, against ERM", reached, "at most", most, reached <= most))
    for rows, least in ((100, 4.0), (1_000, 4.0), (10_000, 2.0)):
        faster, apart = chi_square(rows, rounds)
        lines.append(
            (f"chi-square, n = {rows:,}, times faster than bisection", faster, "at least", least, faster >= least)
        )
        lines.append((f"chi-square, n = {rows:,}, relative difference", apart, "at most", 1e-5, apart <= 1e-5))
    faster, apart = pilots(max(3, rounds // 10))
    lines.append(("24 pilots stacked, times faster than one by one", faster, "at least", 3.0, faster >= 3.0))
    lines.append(("the same, relative difference of losses", apart, "at most", 1e-3, apart <= 1e-3))
    seconds = bootstrap_seconds()
    lines.append(("bootstrap of the three figures, 1,000 x 100,000 (s)", seconds, "at most", 3.0, seconds <= 3.0))

    table = Table(title="Objectives, two threads")
    for column in ("what", "reached", "wanted", ""):
        table.add_column(column)
    for name, reached, side, limit, holds in lines:
        table.add_row(name, f"{reached:.3g}", f"{side} {limit:g}", "yes" if holds else "NO")
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    document = [{"what": n, "reached": r, "wanted": f"{s} {m:g}", "holds": h} for n, r, s, m, h in lines]
    (RESULTS / "objectives.json").write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(line[-1] for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
