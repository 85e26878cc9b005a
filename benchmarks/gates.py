"""How often the gates let a challenger through: at the boundary of one gate, and where it is better in all.

Losses of the champion: 90 % Gamma(1, .15) and 10 % Gamma(2, 1.5) (shape, scale). The challenger's are a function of the
champion's, times a log-normal noise of 10 % a row, since two models trained on nearly the same rows agree on most. The
function is scaled on a million rows until one figure lies exactly at its margin, while the others are no worse than
equal where they can be. Recall: a tenth of the rows are defects; a share of them changes sides. Slices: 20,
one of 300 rows, which is gated, and others of about 90, which are reported only. The margins are the defaults.

    python benchmarks/gates.py            500 repetitions of 2,000 rows
    python benchmarks/gates.py --quick    100 repetitions

It ends with status 1 where a gate at its margin lets through more than 5 %, or what is better in all gets through in
less than 80 %. One slice at its margin is told and not counted: a slice is refused only where it is shown worse.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import binomtest

from flows.comparison import Comparison, Gate, Margins
from flows.gates import judge
from softad.figures import cvar
from softad.simulation_losses import LossLaw

RESULTS = Path(__file__).parent / "results"
AT_MOST, AT_LEAST, BETTER = 0.05, 0.80, "better by the margin in all"
ROWS, SLICES, FIRST_ROWS, DEFECTS, NOISE = 2_000, 20, 300, 0.1, 0.1
CALIBRATION_ROWS = 1_000_000
LAW = LossLaw(0.1, 1.5)
Array = np.ndarray


@dataclass(frozen=True)
class Truth:
    """What the challenger does to the champion's losses and to its answers.

    Attributes
    ----------
    easy: factor on losses below the champion's 0.9 quantile; `hard` on those above it, `hardest` also on those above
        its 0.99 quantile.
    first_slice: further factor on the first slice.
    lost, won: shares of the defects that only the champion, or only the challenger, finds.
    """

    easy: float = 1.0
    hard: float = 1.0
    hardest: float = 1.0
    first_slice: float = 1.0
    lost: float = 0.01
    won: float = 0.01


def challenger(old: Array, truth: Truth, limits: tuple[float, float], rng: np.random.Generator, first: Array) -> Array:
    noise = np.exp(rng.normal(0.0, NOISE, old.size) - NOISE**2 / 2)
    factor = np.where(old <= limits[0], truth.easy, truth.hard) * np.where(old > limits[1], truth.hardest, 1.0)
    return np.asarray(old * factor * np.where(first, truth.first_slice, 1.0) * noise)


def figures(values: Array) -> dict[str, float]:
    return {"mean": float(values.mean()), "tail": cvar(values, 0.9), "stability": float(values.std())}


class Scale:
    """The champion's law on very many rows, on which truths are scaled."""

    def __init__(self, seed: int) -> None:
        self.old = LAW.draw(CALIBRATION_ROWS, np.random.default_rng(seed))
        self.limits = (float(np.quantile(self.old, 0.9)), float(np.quantile(self.old, 0.99)))
        self.before = figures(self.old)
        self.nowhere = np.zeros(self.old.size, dtype=bool)

    def change(self, truth: Truth) -> dict[str, float]:
        new = challenger(self.old, truth, self.limits, np.random.default_rng(1), self.nowhere)
        return {name: value / self.before[name] - 1.0 for name, value in figures(new).items()}

    def solve(self, figure: str, target: float, truth_of: Callable[[float], Truth], steps: int = 20) -> Truth:
        """Bisection for the factor at which a figure changes by `target`."""
        low, high = 0.3, 3.0
        for _ in range(steps):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.change(truth_of(middle))[figure] < target else (low, middle)
        return truth_of(0.5 * (low + high))


def draw(rng: np.random.Generator, truth: Truth, limits: tuple[float, float]) -> Comparison:
    """Two thousand rows judged by both."""
    old = LAW.draw(ROWS, rng)
    # The first slice has rows enough to be gated, the others have too few.
    slices = np.where(np.arange(ROWS) < FIRST_ROWS, 0, 1 + np.arange(ROWS) % (SLICES - 1))
    new = challenger(old, truth, limits, rng, slices == 0)
    defect = rng.random(ROWS) < DEFECTS
    # The champion rejects 4 % of the good rows and finds four defects in five; one that is missed scores below all good
    # rows. So many change sides.
    score = np.where(defect, np.where(rng.random(ROWS) < 0.8, 0.9, 0.02), np.where(rng.random(ROWS) < 0.04, 0.8, 0.1))
    score = score + rng.uniform(0.0, 0.05, ROWS)
    found, missed = defect & (score > 0.5), defect & (score <= 0.5)
    draws = rng.random(ROWS)
    other = score.copy()
    other[found & (draws < truth.lost / 0.8)] = 0.02
    other[missed & (draws < truth.won / 0.2)] = 0.95
    return Comparison(
        old, new, labels=np.where(defect, "defect", "ok"), classes=("ok", "defect"), normal="ok",
        champion_probabilities=np.stack([1 - score, score], axis=1),
        challenger_probabilities=np.stack([1 - other, other], axis=1),
        slices={"machine": np.array([f"M{number:02d}" for number in slices])},
    )  # fmt: skip


def blocked_by(gates: tuple[Gate, ...]) -> list[str]:
    return sorted({"slices" if gate.name.startswith("slice") else gate.name for gate in gates if not gate.passed})


def truths(scale: Scale, margins: Margins) -> dict[str, tuple[str, Truth]]:
    """Name -> the gate that is meant, and the truth."""
    boundary = {
        "mean at its margin": ("mean", scale.solve("mean", margins.mean, lambda x: Truth(easy=x, hard=1.0))),
        "tail at its margin": (
            "tail",
            scale.solve("tail", margins.tail, lambda x: Truth(easy=0.6, hard=x, hardest=0.95)),
        ),
        "stability at its margin": (
            "stability",
            scale.solve("stability", margins.stability, lambda x: Truth(easy=0.8, hard=0.97, hardest=x)),
        ),
        "recall at its margin": ("recall: defect", Truth(0.9, 0.9, lost=0.02, won=0.01)),
    }
    better = scale.solve(
        "mean", -margins.mean, lambda x: scale.solve("tail", -margins.tail, lambda y: Truth(easy=x, hard=y), steps=12)
    )
    return {
        **boundary,
        "one slice at its margin": ("slices", Truth(0.9, 0.9, first_slice=(1.0 + margins.slices) / 0.9, lost=0.0)),
        "one slice at five times its margin": (
            "slices", Truth(0.9, 0.9, first_slice=(1.0 + 5 * margins.slices) / 0.9, lost=0.0),
        ),
        "equal in truth": ("", Truth()),
        BETTER: ("", replace(better, lost=0.0, won=0.01)),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run, print the table, write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="challengers whose name holds this")
    options = parser.parse_args(argv)
    repetitions = options.repetitions or (100 if options.quick else 500)
    margins, scale = Margins(), Scale(options.seed)
    console = Console(stderr=True)
    table = Table("challenger", "mean", "tail", "stability", "let through", "95 % interval", "blocked by")
    document = []
    for number, (name, (gate, truth)) in enumerate(truths(scale, margins).items()):
        if options.only and options.only not in name:
            continue
        rng = np.random.default_rng([options.seed, number])
        change = scale.change(truth)
        passed, blocks = 0, dict.fromkeys(["mean", "tail", "stability", "recall: defect", "slices"], 0)
        for repetition in track(range(repetitions), description=name, console=console):
            names = blocked_by(judge(draw(rng, truth, scale.limits), margins, seed=repetition))
            passed += not names
            for one in names:
                blocks[one] = blocks.get(one, 0) + 1
        interval = binomtest(passed, repetitions).proportion_ci()
        said = ", ".join(f"{one} {count / repetitions:.0%}" for one, count in blocks.items() if count)
        table.add_row(
            name, *(f"{change[key]:+.1%}" for key in ("mean", "tail", "stability")), f"{passed / repetitions:.1%}",
            f"{interval.low:.1%} to {interval.high:.1%}", said,
        )  # fmt: skip
        document.append({
            "challenger": name, "gate": gate, "change": change, "let_through": passed / repetitions,
            "low": interval.low, "high": interval.high, "blocked": {one: n / repetitions for one, n in blocks.items()},
        })  # fmt: skip
    Console(width=140).print(table)
    RESULTS.mkdir(exist_ok=True)
    kept = {"rows": ROWS, "slices": SLICES, "repetitions": repetitions, "seed": options.seed, "challengers": document}
    (RESULTS / "gates.json").write_text(json.dumps(kept, indent=1) + "\n")
    missed = not_reached({row["challenger"]: (row["gate"], row["let_through"]) for row in document})
    for line in missed:
        print(f"not reached: {line}")
    return 1 if missed else 0


def not_reached(found: dict[str, tuple[str, float]]) -> list[str]:
    """What lies beyond the limits, in words.

    >>> not_reached({"recall at its margin": ("recall: defect", 0.08), BETTER: ("", 0.9)})
    ['recall at its margin is let through in 8.0 % (at most 5 %)']
    """
    missed = [
        f"{name} is let through in {100 * rate:.1f} % (at most {100 * AT_MOST:.0f} %)"
        for name, (gate, rate) in found.items()
        if gate not in {"", "slices"} and rate > AT_MOST
    ]
    if BETTER in found and found[BETTER][1] < AT_LEAST:
        missed.append(f"{BETTER} is let through in {100 * found[BETTER][1]:.1f} % (at least {100 * AT_LEAST:.0f} %)")
    return missed


if __name__ == "__main__":
    sys.exit(main())
