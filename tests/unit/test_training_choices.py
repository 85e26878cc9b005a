"""What a training may be asked for: losses, weights, schedules, what decides the best epoch, and callbacks."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from softad.calibration import cross_entropies
from softad.criteria import CVaR, Mean, SoftAD
from softad.figures import cvar
from softad.models import build_model
from softad.row_losses import focal, quantile, smoothed_cross_entropy
from softad.schedules import cosine, rate_factors
from softad.stopping import StopTraining, balanced_error
from softad.training import Epoch, fit, outputs_of
from tests.unit.training_cases import HELD, mlp, same_bits, three_classes

ONE_STEP = {"epochs": 1, "batch_size": 10_000, "optimizer": "sgd", "learning_rate": 0.5, "momentum": 0.0, "threads": 1}


# --- losses ---


def test_focal_loss_with_gamma_0_trains_as_the_cross_entropy() -> None:
    x, y = three_classes()
    networks = [mlp() for _ in range(4)]
    fit(networks[0], x, y, epochs=3)
    fit(networks[1], x, y, epochs=3, base_loss=("focal", 0))
    fit(networks[2], x, y, epochs=3, base_loss="focal:2")
    fit(networks[3], x, y, epochs=3, base_loss=focal())
    assert same_bits(networks[0], networks[1])
    assert same_bits(networks[2], networks[3])
    assert not same_bits(networks[0], networks[2])


def test_label_smoothing_trains_as_torchs() -> None:
    x, y = three_classes()
    network, byhand = mlp(), mlp()
    fit(network, x, y, label_smoothing=0.2, weight_decay=0.0, **ONE_STEP)
    loss = nn.CrossEntropyLoss(label_smoothing=0.2)(byhand(torch.tensor(x)), torch.tensor(y))
    for weight, slope in zip(byhand.parameters(), torch.autograd.grad(loss, list(byhand.parameters())), strict=True):
        weight.data -= 0.5 * slope
    for name, value in byhand.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value)


@pytest.mark.parametrize(
    "change", [{"base_loss": "focal:3"}, {"label_smoothing": 0.4}, {"base_loss": smoothed_cross_entropy(0.4)}]
)
def test_validation_and_calibration_are_by_the_plain_loss(change) -> None:
    x, y = three_classes()
    seen: list[Tensor] = []

    class Watching(Mean):
        def observe(self, losses: Tensor) -> None:
            seen.append(losses)

    result = fit(mlp(), x, y, validation=HELD, epochs=4, learning_rate=0.02, criterion=Watching(), **change)
    logits = outputs_of(result.model, HELD[0]).numpy()
    plain = cross_entropies(logits, HELD[1])
    assert result.history[-1].validation == pytest.approx(plain.mean(), rel=1e-5)
    assert len(seen) == 4
    np.testing.assert_allclose(seen[-1].numpy(), plain, rtol=1e-4, atol=1e-6)
    assert cross_entropies(logits, HELD[1], result.temperature).mean() < plain.mean()
    trained = fit(mlp(), x, y, validation=HELD, epochs=4, learning_rate=0.02)
    assert not same_bits(result.model, trained.model)


def test_quantile_regression_leaves_its_share_below() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 4)).astype(np.float32)
    y = (2 * x[:, 0] + rng.exponential(size=800)).astype(np.float32)
    for choice in ("quantile:0.9", ("quantile", 0.9), quantile(0.9)):
        network = build_model("linear", inputs=(4,), outputs=1, seed=0)
        result = fit(network, x, y, base_loss=choice, validation=(x, y), epochs=40, learning_rate=0.05)
        below = (y <= outputs_of(network, x).numpy()[:, 0]).mean()
        assert below == pytest.approx(0.9, abs=0.02)
        assert result.temperature == 1.0
        assert result.history[-1].validation == pytest.approx(
            float(quantile(0.9)(outputs_of(network, x), torch.tensor(y)).mean()), rel=1e-5
        )


# --- weights ---


@pytest.mark.parametrize("criterion", [Mean(), CVaR(0.3), SoftAD(theta=0.4)])
def test_whole_weights_are_as_good_as_copies(criterion) -> None:
    x, y = three_classes(60)
    copies = np.random.default_rng(2).integers(0, 4, 60)
    weighted, repeated = mlp(), mlp()
    fit(weighted, x, y, criterion=criterion, sample_weights=copies, **ONE_STEP)
    fit(repeated, x.repeat(copies, axis=0), y.repeat(copies), criterion=criterion, **ONE_STEP)
    for name, value in weighted.state_dict().items():
        torch.testing.assert_close(value, repeated.state_dict()[name], rtol=1e-4, atol=1e-6)
    assert not same_bits(weighted, mlp())


def test_class_weights_are_as_good_as_copies_of_a_class() -> None:
    x, y = three_classes(60)
    copies = np.array([1, 2, 5])[y]
    weighted, repeated, both = mlp(), mlp(), mlp()
    fit(weighted, x, y, class_weights=(1, 2, 5), **ONE_STEP)
    fit(repeated, x.repeat(copies, axis=0), y.repeat(copies), **ONE_STEP)
    fit(both, x, y, class_weights=(2, 4, 5), sample_weights=np.array([0.5, 0.5, 1.0])[y], **ONE_STEP)
    for name, value in weighted.state_dict().items():
        torch.testing.assert_close(value, repeated.state_dict()[name], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(value, both.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_balanced_class_weights_recall_more_of_the_rare_class() -> None:
    x, y = three_classes(600)
    held = three_classes(600, seed=3)
    recall = {}
    for choice in (None, "balanced"):
        network = mlp()
        fit(network, x, y, class_weights=choice, epochs=15, learning_rate=0.01)
        recall[choice] = (outputs_of(network, held[0]).argmax(1).numpy() == 2)[held[1] == 2].mean()
    assert recall["balanced"] > recall[None] + 0.1


def test_rows_of_weight_0_are_not_there() -> None:
    x, y = three_classes(60)
    weights = np.where(np.arange(60) < 40, 1.0, 0.0)
    seen: set[float] = set()

    def record(batch: Tensor, generator: torch.Generator) -> Tensor:
        seen.update(batch[:, 0].tolist())
        return batch

    fit(mlp(), x, y, sample_weights=weights, batch_size=7, epochs=2, augment=record)
    assert seen == set(x[:40, 0].tolist())


def test_a_function_of_losses_alone_trains_without_weights_and_is_refused_with_them() -> None:
    x, y = three_classes(40)
    fit(mlp(), x, y, criterion=lambda losses: losses.max(), epochs=1)
    fit(mlp(), x, y, criterion=lambda losses, weights: (losses * weights).sum(), epochs=1, sample_weights=np.ones(40))
    with pytest.raises(ValueError, match=r"^criterion: takes losses alone; allowed with sample_weights"):
        fit(mlp(), x, y, criterion=lambda losses: losses.max(), epochs=1, sample_weights=np.ones(40))


# --- schedules ---


def rates_of(**arguments) -> list[float]:
    x, y = three_classes(40)
    kept: list[torch.optim.Optimizer] = []
    rates: list[float] = []

    def make(weights: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
        kept.append(torch.optim.SGD(weights, lr=rate))
        return kept[0]

    fit(
        mlp(), x, y, optimizer=make, learning_rate=0.1,
        callbacks=[lambda epoch, model: rates.append(kept[0].param_groups[0]["lr"])], **arguments,
    )  # fmt: skip
    return rates


def test_the_learning_rate_follows_the_schedule() -> None:
    assert rates_of(epochs=3) == [0.1, 0.1, 0.1]
    assert rates_of(epochs=4, schedule="cosine") == pytest.approx(
        [0.05 * (1 + math.cos(math.pi * k / 4)) for k in range(4)]
    )
    assert rates_of(epochs=8, schedule="step") == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 2)
    assert rates_of(epochs=3, schedule=lambda epoch, epochs: epoch / epochs) == pytest.approx([1 / 30, 2 / 30, 0.1])
    assert rates_of(epochs=4, warmup=2) == pytest.approx([0.1 / 3, 0.2 / 3, 0.1, 0.1])
    assert rates_of(epochs=4, warmup=1, schedule="cosine")[0] == pytest.approx(0.05)
    assert all(later < earlier for earlier, later in pairwise(rates_of(epochs=5, schedule=cosine)))


def test_a_rate_of_0_moves_nothing() -> None:
    x, y = three_classes(40)
    network = mlp()
    fit(network, x, y, epochs=2, schedule=lambda epoch, epochs: 0.0)
    assert same_bits(network, mlp())


def test_factors_out_of_range_are_named() -> None:
    for wrong in (-0.5, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"^schedule: factor .* in epoch 2 of 3; allowed: \[0, inf\)"):
            rate_factors(lambda epoch, epochs: wrong if epoch == 2 else 1.0, 0, 3)  # noqa: B023


# --- what decides the best epoch ---

FIGURES = {
    "mean": lambda logits, y: cross_entropies(logits, y).mean(),
    "tail": lambda logits, y: cvar(cross_entropies(logits, y), 0.9),
    "stability": lambda logits, y: cross_entropies(logits, y).std(),
    "error": lambda logits, y: (logits.argmax(1) != y).mean(),
    "balanced_error": lambda logits, y: np.mean([(logits.argmax(1) != y)[y == k].mean() for k in np.unique(y)]),
}


def test_each_figure_decides_the_best_epoch_by_its_own() -> None:
    x, y = three_classes(80, noise=2.0)
    held = three_classes(300, noise=2.0, seed=1)
    best = {}
    for name, figure in FIGURES.items():
        seen: list[float] = []
        result = fit(
            mlp(), x, y, validation=held, epochs=40, patience=40, learning_rate=0.02, stop_on=name, calibrate=False,
            callbacks=[lambda epoch, model: seen.append(figure(outputs_of(model, held[0]).numpy(), held[1]))],  # noqa: B023
        )  # fmt: skip
        assert [epoch.figure for epoch in result.history] == pytest.approx(seen, rel=1e-4)
        assert result.best_epoch == 1 + int(np.argmin([epoch.figure for epoch in result.history]))
        assert figure(outputs_of(result.model, held[0]).numpy(), held[1]) == pytest.approx(min(seen), rel=1e-4)
        assert [epoch.number for epoch in result.history if epoch.best][-1] == result.best_epoch
        best[name] = result.best_epoch
        if name != "mean":
            means = [epoch.validation for epoch in result.history]
            assert means != pytest.approx(seen)
    assert len(set(best.values())) > 2  # the figures disagree, so the choice does something


def test_a_figure_of_ones_own() -> None:
    x, y = three_classes(80)
    shapes = []

    def share_of_large(losses: Tensor, outputs: Tensor, targets: Tensor) -> float:
        shapes.append((losses.shape, outputs.shape, targets.shape))
        return float(-len(shapes) if len(shapes) <= 3 else len(shapes))

    result = fit(mlp(), x, y, validation=HELD, epochs=20, patience=4, stop_on=share_of_large)
    assert result.best_epoch == 3
    assert len(result.history) == 7
    assert shapes[0] == ((120,), (120, 3), (120,))
    with pytest.raises(ValueError, match=r"^stop_on: nan in epoch 1; allowed: a finite number"):
        fit(mlp(), x, y, validation=HELD, epochs=2, stop_on=lambda losses, outputs, targets: math.nan)


def test_of_equal_figures_the_first_counts_and_missing_classes_do_not() -> None:
    x, y = three_classes(80)
    result = fit(mlp(), x, y, validation=HELD, epochs=9, patience=3, stop_on=lambda *_: 1.0)
    assert (result.best_epoch, len(result.history), result.stopped_early) == (1, 4, True)
    outputs = torch.eye(4)[[0, 3, 3]]
    assert balanced_error(torch.zeros(3), outputs, torch.tensor([0, 3, 0])) == pytest.approx(0.25)


# --- callbacks ---


def test_callbacks_see_each_epoch_and_one_may_end_the_training(tmp_path: Path) -> None:
    x, y = three_classes(60)
    seen: list[int] = []

    def enough(epoch: Epoch, model: nn.Module) -> None:
        assert not model.training
        if epoch.number == 3:
            raise StopTraining

    result = fit(
        mlp(), x, y, epochs=10, checkpoint=tmp_path / "c",
        callbacks=[enough, lambda epoch, model: seen.append(epoch.number)],
    )  # fmt: skip
    assert seen == [1, 2, 3]
    assert (len(result.history), result.stopped_early, result.best_epoch) == (3, True, 3)
    three = mlp()
    fit(three, x, y, epochs=3)
    assert same_bits(result.model, three)
    again = fit(mlp(), x, y, epochs=10, checkpoint=tmp_path / "c")
    assert again.history == result.history
    assert again.stopped_early


def test_a_training_that_a_callback_ends_still_gets_its_best_weights() -> None:
    x, y = three_classes(80, noise=2.0)

    def enough(epoch: Epoch, model: nn.Module) -> None:
        if epoch.number == 12:
            raise StopTraining

    figures = iter([3.0, 1.0, *range(2, 50)])
    best = mlp()
    fit(best, x, y, epochs=2, learning_rate=0.05)
    result = fit(
        mlp(), x, y, validation=HELD, epochs=50, patience=40, learning_rate=0.05, callbacks=[enough],
        stop_on=lambda *_: float(next(figures)),
    )  # fmt: skip
    assert (len(result.history), result.best_epoch, result.stopped_early) == (12, 2, True)
    assert same_bits(result.model, best)
