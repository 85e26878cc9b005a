"""Sharpness-aware training, divergence named by row, and every choice taken up again with the same bits."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from softad.calibration import cross_entropies
from softad.criteria import SoftAD
from softad.models import build_model
from softad.training import Epoch, FitResult, TrainingDiverged, fit, outputs_of
from tests.unit.training_cases import HELD, mlp, same_bits, three_classes


def untimed(result: FitResult) -> list[Epoch]:
    return [replace(epoch, seconds=0.0) for epoch in result.history]


ONE_STEP = {"epochs": 1, "batch_size": 10_000, "optimizer": "sgd", "learning_rate": 0.5, "momentum": 0.0, "threads": 1}


# --- sharpness ---


def test_sharpness_takes_the_gradient_at_the_perturbed_weights() -> None:
    x, y = three_classes(50)
    network, byhand = mlp(), mlp()
    fit(network, x, y, sharpness=0.3, weight_decay=0.0, **ONE_STEP)
    parameters = list(byhand.parameters())
    before = [weight.detach().clone() for weight in parameters]

    def gradient() -> list[Tensor]:
        loss = nn.functional.cross_entropy(byhand(torch.tensor(x)), torch.tensor(y))
        return list(torch.autograd.grad(loss, parameters))

    slopes = gradient()
    norm = math.sqrt(sum(float(slope.square().sum()) for slope in slopes))
    for weight, slope in zip(parameters, slopes, strict=True):
        weight.data += 0.3 * slope / norm
    for weight, slope, start in zip(parameters, gradient(), before, strict=True):
        weight.data = start - 0.5 * slope
    for name, value in byhand.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_sharpness_0_is_an_ordinary_training_and_clip_bounds_its_step() -> None:
    x, y = three_classes(80)
    plain, flat = mlp(), mlp()
    fit(plain, x, y, epochs=3, optimizer="sgd", learning_rate=0.03, clip=0.2)
    fit(flat, x, y, epochs=3, optimizer="sgd", learning_rate=0.03, clip=0.2, sharpness=0.0)
    assert same_bits(plain, flat)
    for groups in (None, np.arange(80) % 2):
        moved = mlp()
        fit(moved, 1e3 * x, y, sharpness=0.05, groups=groups, clip=0.1, weight_decay=0.0, **ONE_STEP)
        change = [value - mlp().state_dict()[name] for name, value in moved.state_dict().items()]
        assert math.sqrt(sum(float(part.square().sum()) for part in change)) == pytest.approx(0.05, rel=1e-3)


def test_a_sharpness_aware_step_does_not_grow_with_sigma() -> None:
    # At theta -> -inf the gradient is sigma times ERM's, as without sharpness.
    x, y = three_classes(80)
    plain, scaled = mlp(), mlp()
    for network, criterion in ((plain, None), (scaled, SoftAD(theta=-1e7, sigma=16.0))):
        fit(network, x, y, criterion=criterion, epochs=3, optimizer="sgd", learning_rate=0.01, sharpness=0.05)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(scaled.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_groups_turn_the_training_to_the_harder_group() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4)).astype(np.float32)
    groups = (np.arange(400) % 10 == 0).astype(np.int64)
    y = np.where(groups == 1, x[:, 0] < 0, x[:, 0] > 0).astype(np.int64)  # a tenth of the rows says the opposite
    x[:, 3] = 0.3 * groups
    losses = {}
    for choice in (None, groups):
        network = build_model("mlp", inputs=(4,), outputs=2, hidden=(16,), seed=0)
        fit(network, x, y, epochs=15, sharpness=0.01, groups=choice, group_step=0.5, learning_rate=5e-3)
        losses[choice is None] = cross_entropies(outputs_of(network, x).numpy(), y)[groups == 1].mean()
    assert losses[False] < 0.7 * losses[True]


# --- divergence ---


class RefusesNan(nn.Module):
    """Names the row within the batch, as the criteria do on the CPU."""

    def forward(self, losses: Tensor, weights: Tensor | None = None) -> Tensor:
        bad = ~torch.isfinite(losses.detach())
        if bool(bad.any()):
            raise ValueError(f"losses: row {int(bad.nonzero()[0, 0])}; allowed: finite")
        return losses.mean()


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"criterion": SoftAD(theta=0.2)},
        {"criterion": RefusesNan()},
        {"sharpness": 0.05},
        {"sharpness": 0.05, "groups": np.arange(100) % 3},
    ],
)
def test_a_row_whose_loss_is_not_finite_is_named_by_its_number_among_the_training_rows(change) -> None:
    x, y = three_classes(100)
    calls = iter(range(10_000))

    # The targets carry the rows' numbers along, so that one row's loss can be spoiled.
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        losses = nn.functional.cross_entropy(outputs, targets % 10, reduction="none")
        return torch.where((targets // 10 == 42) & (next(calls) > 12), math.nan, losses)

    targets = y + 10 * np.arange(100)
    with pytest.raises(TrainingDiverged, match=r"epoch \d+, step \d+: the loss of row 42 is nan; lower the") as info:
        fit(mlp(), x, targets, base_loss=loss, batch_size=20, epochs=40, **change)
    assert info.value.row == 42
    assert math.isnan(info.value.loss)
    assert isinstance(info.value.__cause__, ValueError)
    assert (info.value.epoch, info.value.step) > (1, 1)


def test_a_gradient_that_is_not_finite_is_a_divergence() -> None:
    x, y = three_classes(40)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        # The square root has no finite slope at 0.
        return (outputs[:, 0] * 0.0).abs().sqrt() + 1.0

    with pytest.raises(TrainingDiverged, match=r"epoch 1, step 1: the norm of the gradient is nan"):
        fit(mlp(), x, y, base_loss=loss, epochs=1, sharpness=0.1)
    with pytest.raises(TrainingDiverged, match=r"epoch 1, step 1: the weight .* is nan"):
        fit(mlp(), x, y, base_loss=loss, epochs=1)


class Reads(TorchDispatchMode):
    """Counts the numbers that are read from tensors; an accelerator would wait for each."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_no_number_is_read_at_a_step() -> None:
    x, y = three_classes(160)
    counted = []
    for size in (80, 10):
        with Reads() as reads:
            fit(
                mlp(), x, y, criterion=lambda losses, weights: (losses * weights).mean(), batch_size=size, epochs=2,
                clip=1.0, schedule="cosine", sample_weights=1.0 + np.arange(160) % 2, validation=HELD,
            )  # fmt: skip
        counted.append(reads.count)
    assert counted[0] == counted[1] > 0


def test_a_criterions_other_refusals_stay_as_they_are() -> None:
    x, y = three_classes(40)

    def refuses(losses: Tensor) -> Tensor:
        raise ValueError("level: 7; allowed: [0, 1)")

    with pytest.raises(ValueError, match=r"^level: 7; allowed"):
        fit(mlp(), x, y, criterion=refuses, epochs=1)


# --- resuming with the same bits ---


class Stop(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": "cosine", "warmup": 2},
        {"schedule": lambda epoch, epochs: 1.0 / epoch, "optimizer": "sgd"},
        {"warmup": 5},
        {"sharpness": 0.1, "optimizer": "sgd", "clip": 1.0},
        {"sharpness": 0.1, "schedule": "step"},
        {"sharpness": 0.05, "groups": np.arange(160) % 3, "group_step": 0.3},
        {"criterion": lambda: SoftAD(theta="auto", sigma=0.5)},
        {"criterion": lambda: SoftAD(theta="auto"), "sharpness": 0.05},
        {"class_weights": "balanced", "sample_weights": np.arange(160) % 4, "stop_on": "tail", "patience": 4},
        {"base_loss": "focal:1.5", "stop_on": "balanced_error", "patience": 2},
        {"label_smoothing": 0.1, "stop_on": "stability"},
    ],
    ids=", ".join,
)
@pytest.mark.parametrize("stops", [(1,), (3, 5)])
def test_a_training_taken_up_again_ends_with_the_same_bits(change, stops: tuple[int, ...], tmp_path: Path) -> None:
    x, y = three_classes()
    path = tmp_path / "c"

    def run(**more) -> FitResult:
        arguments = {**change, **more}
        if "criterion" in change:
            arguments["criterion"] = change["criterion"]()
        return fit(mlp(), x, y, validation=HELD, epochs=7, batch_size=32, learning_rate=0.02, threads=1, **arguments)

    def stop_after(number: int):
        def stop(epoch: Epoch) -> None:
            if epoch.number == number:
                raise Stop

        return stop

    whole = run()
    for number in stops:
        if number < len(whole.history):
            with pytest.raises(Stop):
                run(checkpoint=path, progress=stop_after(number))
    resumed = run(checkpoint=path)
    assert same_bits(whole.model, resumed.model)
    assert untimed(whole) == untimed(resumed)
    assert (whole.temperature, whole.best_epoch) == (resumed.temperature, resumed.best_epoch)
    plain = fit(mlp(), x, y, validation=HELD, epochs=7, batch_size=32, learning_rate=0.02, threads=1)
    assert not same_bits(whole.model, plain.model) or "stop_on" in change


def test_what_a_criterion_observed_is_restored(tmp_path: Path) -> None:
    x, y = three_classes()
    first, second = SoftAD(theta="auto"), SoftAD(theta="auto")
    fit(mlp(), x, y, validation=HELD, epochs=3, criterion=first, checkpoint=tmp_path / "c")
    fit(mlp(), x, y, validation=HELD, epochs=3, criterion=second, checkpoint=tmp_path / "c")
    assert second.theta == first.theta != "auto"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"label_smoothing": 0.1}, "label smoothing"),
        ({"base_loss": "focal"}, "base loss"),
        ({"schedule": "cosine"}, "schedule"),
        ({"warmup": 1}, "schedule"),
        ({"stop_on": "tail"}, "stop on"),
        ({"sharpness": 0.1}, "sharpness"),
        ({"sample_weights": np.arange(160)}, "data"),
        ({"class_weights": "balanced"}, "data"),
    ],
)
def test_the_checkpoint_of_another_choice_is_refused(change, named: str, tmp_path: Path) -> None:
    x, y = three_classes()
    fit(mlp(), x, y, validation=HELD, epochs=1, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match=rf"another training \(.*{named}.* differ\)"):
        fit(mlp(), x, y, validation=HELD, epochs=1, checkpoint=tmp_path / "c", **change)
    scheduled = {"schedule": "cosine", "checkpoint": tmp_path / "d"}
    fit(mlp(), x, y, epochs=2, **scheduled)
    with pytest.raises(ValueError, match=r"another training \(schedule differ\)"):
        fit(mlp(), x, y, epochs=4, **scheduled)  # a cosine over 4 epochs begins otherwise
