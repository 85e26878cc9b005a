"""The data of the evidence: what is shipped by scikit-learn or drawn by a formula, and the real sets where they lie.

Every set gives, for a seed, rows to train on, rows to stop and choose by, and rows to judge on.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn import datasets
from sklearn.model_selection import GroupShuffleSplit, train_test_split
from torch import Tensor

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Rows:
    """One seed's rows: features and class numbers; `hard` marks the judged rows that are hard by construction."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    hard: Array | None = None
    groups: Tensor | None = None
    raw: tuple[Array, Array] | None = None
    raw_groups: Array | None = None


@dataclass(frozen=True)
class DataSet:
    """A set, and the network and training that all methods have on it."""

    name: str
    title: str
    make: Callable[[int], Rows]
    classes: int
    model: str = "mlp"
    hidden: tuple[int, ...] = (64, 64)
    inputs: tuple[int, ...] = ()
    epochs: int = 60
    batch_size: int = 100
    optimizer: str = "sgd"
    learning_rate: float = 0.03
    weight_decay: float = 5e-4
    normal: int | None = None
    sharp: bool = False
    pilot: dict[str, Any] = field(default_factory=dict)


NOISE = 0.16
"""Standard deviation of the pixel noise per step of severity; pixels lie in [0, 1]."""


def severities(regime: str, rows: int, rng: np.random.Generator) -> Array:
    """Severity 0-5 of each row: Poisson(1) cut at 5, uniform, or 5 minus Poisson(1)."""
    drawn = np.minimum(rng.poisson(1.0, rows), 5)
    return {"rare": drawn, "uniform": rng.integers(0, 6, rows), "many": 5 - drawn}[regime]


def noisy_digits(regime: str, flat: bool) -> Callable[[int], Rows]:
    def make(seed: int) -> Rows:
        rng = np.random.default_rng(seed)
        found = datasets.load_digits()
        severity = severities(regime, len(found.target), rng)
        images = found.images / 16.0 + NOISE * severity[:, None, None] * rng.normal(size=found.images.shape)
        x = (images.reshape(len(images), -1) if flat else images[:, None]).astype(np.float32)
        return split(x, found.target, seed, hard=severity >= 4, groups=severity, scale=False)

    return make


def split(
    x: Array,
    y: Array,
    seed: int,
    *,
    hard: Array | None = None,
    groups: Array | None = None,
    scale: bool = True,
    wrong: float = 0.0,
    by: Array | None = None,
) -> Rows:
    """60 / 20 / 20, stratified, or by whole groups `by`; features scaled by the training rows.

    wrong: share of the training and validation labels that are drawn at random instead.
    """
    every = np.arange(len(y))
    if by is None:
        rest, test = train_test_split(every, test_size=0.2, stratify=y, random_state=seed)
        train, held = train_test_split(rest, test_size=0.25, stratify=y[rest], random_state=seed)
    else:
        rest, test = next(GroupShuffleSplit(1, test_size=0.2, random_state=seed).split(every, groups=by))
        a, b = next(GroupShuffleSplit(1, test_size=0.25, random_state=seed).split(rest, groups=by[rest]))
        train, held = rest[a], rest[b]
    given = np.array(y)
    if wrong:
        rng = np.random.default_rng(seed + 10_000)
        swapped = rest[rng.random(len(rest)) < wrong]
        given[swapped] = rng.integers(0, int(y.max()) + 1, len(swapped))
    scaled = x
    if scale:
        middle, spread = x[train].mean(0), x[train].std(0)
        scaled = ((x - middle) / np.where(spread > 0, spread, 1.0)).astype(np.float32)

    def part(rows: Array, labels: Array) -> tuple[Tensor, Tensor]:
        return torch.tensor(scaled[rows], dtype=torch.float32), torch.tensor(labels[rows], dtype=torch.int64)

    return Rows(
        part(train, given), part(held, given), part(test, np.asarray(y)),
        hard=None if hard is None else hard[test],
        groups=None if groups is None else torch.tensor(groups[train], dtype=torch.int64),
        raw=(x[rest], given[rest]),
        raw_groups=None if by is None else by[rest],
    )  # fmt: skip


def synthetic(shape: str, wrong: float) -> Callable[[int], Rows]:
    """Two classes in the plane: 100 rows to train on, as many to validate, 2,000 to judge."""

    def make(seed: int) -> Rows:
        rng = np.random.default_rng(seed)
        n = 2200
        y = rng.integers(0, 2, n)
        if shape == "gaussian":
            x = rng.normal(size=(n, 2)) + np.where(y[:, None] == 1, 1.0, -1.0)
        elif shape == "sinusoid":
            x = rng.uniform(-1.0, 1.0, (n, 2)) * [np.pi, 2.0]
            y = (x[:, 1] + 0.2 * rng.normal(size=n) > np.sin(2.0 * x[:, 0])).astype(int)
        else:
            turn = np.sqrt(rng.random(n)) * 3.0 * np.pi
            side = np.where(y == 1, 1.0, -1.0)
            x = np.stack([turn * np.cos(turn), turn * np.sin(turn)], 1) * side[:, None] / 6.0
            x += 0.1 * rng.normal(size=x.shape)
        given = np.where(rng.random(n) < wrong, 1 - y, y)
        a, b = slice(0, 100), slice(100, 200)
        t = lambda rows, labels: (torch.tensor(x[rows], dtype=torch.float32), torch.tensor(labels[rows]))  # noqa: E731
        return Rows(t(a, given), t(b, given), t(slice(200, None), y), raw=(x[:200].astype(np.float32), given[:200]))

    return make


def folder() -> Path | None:
    """Where the real sets lie, as `SOFTAD_DATA` says."""
    named = os.environ.get("SOFTAD_DATA")
    return Path(named) if named else None


def steel(wrong: float = 0.0) -> Callable[[int], Rows]:
    def make(seed: int) -> Rows:
        import pandas as pd

        frame = pd.read_csv(_real() / "steel_plates_faults" / "faults.csv")
        x, y = frame.iloc[:, :27].to_numpy(np.float64), frame.iloc[:, 27:].to_numpy().argmax(1)
        return split(x, y, seed, wrong=wrong)

    return make


def ai4i(seed: int) -> Rows:
    """The milling machine: five measurements and the product's type; the failure modes are left out (they leak)."""
    import pandas as pd

    frame = pd.read_csv(_real() / "ai4i2020" / "ai4i2020.csv")
    numbers = frame[[c for c in frame.columns if "[" in c]].to_numpy(np.float64)
    kinds = pd.get_dummies(frame["Type"]).to_numpy(np.float64)
    return split(np.concatenate([numbers, kinds], 1), frame["Machine failure"].to_numpy(), seed)


def ball_screw(seed: int) -> Rows:
    """Patches of ball screws as 16 x 16 grey pixels, split by position."""
    import pandas as pd
    from PIL import Image

    where = _real() / "bsdata_ball_screw"
    frame = pd.read_csv(where / "patches.csv")
    with zipfile.ZipFile(where / "patches.zip") as packed:
        names = {Path(name).name: name for name in packed.namelist()}
        pixels = [
            np.asarray(
                Image.open(io.BytesIO(packed.read(names[Path(file).name]))).convert("L").resize((16, 16)), np.float64
            )
            for file in frame["file"]
        ]
    x = np.stack(pixels).reshape(len(frame), -1) / 255.0
    y = frame["label"].astype(int).to_numpy()
    position = pd.factorize(frame["position"].astype(str) + frame["bsd_type"].astype(str))[0]
    return split(x, y, seed, by=position)


def shipped(load: Callable[[], Any]) -> Callable[[int], Rows]:
    def make(seed: int) -> Rows:
        found = load()
        return split(found.data, found.target, seed)

    return make


def _real() -> Path:
    where = folder()
    if where is None:
        raise FileNotFoundError("SOFTAD_DATA does not name the folder of the real data sets")
    return where


def all_sets() -> list[DataSet]:
    """Every set, the real ones where they are there."""
    found = []
    for regime, words in (("rare", "hard rows rare"), ("uniform", "all severities alike"), ("many", "hard rows many")):
        found += [
            DataSet(
                f"digits-{regime}-cnn", f"Digits with noise, {words}, small CNN", noisy_digits(regime, False), 10,
                model="cnn", hidden=(32,), inputs=(1, 8, 8), epochs=30, sharp=regime != "uniform",
            ),
            DataSet(
                f"digits-{regime}-linear", f"Digits with noise, {words}, linear", noisy_digits(regime, True), 10,
                model="linear", inputs=(64,), epochs=60,
            ),
        ]  # fmt: skip
    for shape in ("gaussian", "sinusoid", "spiral"):
        for wrong in (0.0, 0.05):
            found.append(
                DataSet(
                    f"{shape}-{round(100 * wrong)}", f"{shape.capitalize()} in the plane, {wrong:.0%} wrong labels",
                    synthetic(shape, wrong), 2, hidden=(100,) * 5, inputs=(2,), epochs=150, optimizer="adamw",
                    learning_rate=1e-3, weight_decay=1e-4,
                )
            )  # fmt: skip
    found += [
        DataSet("breast-cancer", "Breast cancer (scikit-learn)", shipped(datasets.load_breast_cancer), 2, inputs=(30,)),
        DataSet("wine", "Wine (scikit-learn)", shipped(datasets.load_wine), 3, inputs=(13,)),
        DataSet("iris", "Iris (scikit-learn)", shipped(datasets.load_iris), 3, inputs=(4,)),
    ]
    if folder() is not None:
        found += [
            DataSet("steel", "Steel Plates", steel(), 7, inputs=(27,), sharp=True),
            DataSet("steel-wrong-10", "Steel Plates, 10 % wrong labels", steel(0.10), 7, inputs=(27,)),
            DataSet("steel-wrong-25", "Steel Plates, 25 % wrong labels", steel(0.25), 7, inputs=(27,)),
            DataSet("ai4i", "AI4I 2020, milling machine", ai4i, 2, inputs=(8,), epochs=30, normal=0),
            DataSet(
                "ball-screw", "Ball screw patches, split by position", ball_screw, 2, inputs=(256,), epochs=40, normal=0
            ),
        ]  # fmt: skip
    return found
