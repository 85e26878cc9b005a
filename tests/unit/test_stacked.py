"""A stack gives what `softad.training.fit` gives model by model."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from softad.criteria import ChiSquareDRO, CVaR, Flooding, IFlood, Mean, SoftAD, Tilted
from softad.models import build_model
from softad.stacked import Pilot, PilotResult, Split, train_stack
from softad.training import FitResult, fit, outputs_of

CLASSES = 3


def split_of(seed: int) -> Split:
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(150, 4)).astype(np.float32))
    y = (x[:, 0] + x[:, 1] ** 2 + 0.8 * torch.from_numpy(rng.normal(size=150)) > 1).long()
    y[x[:, 2] > 0.9] = 2
    return Split(x[:101], y[:101], x[101:], y[101:])


SPLITS = [split_of(0), split_of(1)]


def build(seed: int) -> nn.Module:
    return build_model("mlp", inputs=(4,), outputs=CLASSES, hidden=(8,), seed=seed)


def alone(pilot: Pilot, *, patience: int | None, epochs: int, optimizer: str = "adamw") -> FitResult:
    split = SPLITS[pilot.split]
    return fit(
        build(pilot.seed), split.features, split.targets,
        criterion=copy.deepcopy(pilot.criterion), label_smoothing=pilot.label_smoothing,
        base_loss=("focal", pilot.focal) if pilot.focal else "cross_entropy", class_weights=pilot.class_weights,
        validation=(split.validation_features, split.validation_targets), epochs=epochs, batch_size=25,
        optimizer=optimizer, learning_rate=0.02, patience=patience, seed=pilot.seed, threads=1,
    )  # fmt: skip


def check(result: PilotResult, expected: FitResult) -> None:
    validation = [epoch.validation for epoch in expected.history]
    np.testing.assert_allclose(result.validation, validation, rtol=1e-3, atol=1e-5)
    assert result.best_epoch == expected.best_epoch
    split = SPLITS[result.pilot.split]
    ours, theirs = (outputs_of(model, split.validation_features) for model in (result.model, expected.model))
    assert float((ours - theirs).abs().max()) < 5e-3 * float(theirs.abs().max())


CRITERIA = [
    Mean(),
    CVaR(0.5),
    CVaR(0.9),
    ChiSquareDRO(0.0),
    ChiSquareDRO(0.5),
    Tilted(1.0),
    Tilted(-0.5),
    Flooding(0.3),
    IFlood(0.3, 0.5),
    SoftAD(0.2),
    SoftAD(0.4, sigma=0.1),
    SoftAD("auto"),
    SoftAD(0.2, transform=Mean()),
    SoftAD(0.2, transform=CVaR(0.5)),
    SoftAD(0.2, transform=ChiSquareDRO(0.5)),
    SoftAD(0.2, transform=Tilted(1.0)),
    SoftAD(0.2, transform=CVaR(0.5), reading="pointwise"),
    SoftAD(0.2, transform=ChiSquareDRO(0.5), reading="pointwise"),
    SoftAD(0.2, transform=Tilted(1.0), reading="pointwise"),
    SoftAD(0.2, transform=Mean(), reading="pointwise"),
]


@pytest.mark.parametrize("weights", [None, (1.0, 2.718, 0.577)])
def test_every_criterion_on_shared_rows(weights: tuple[float, ...] | None) -> None:
    pilots = [Pilot(criterion, class_weights=weights) for criterion in CRITERIA]
    for result in train_stack(pilots, SPLITS, build, epochs=4, batch_size=25, learning_rate=0.02):
        check(result, alone(result.pilot, patience=None, epochs=4))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_seeds_splits_training_losses_and_early_stopping(optimizer: str) -> None:
    pilots = [
        Pilot(Mean(), seed=3),
        Pilot(SoftAD("auto"), seed=1, split=1),
        Pilot(Mean(), seed=2, label_smoothing=0.1),
        Pilot(Mean(), split=1, focal=2.0),
        Pilot(CVaR(0.5), seed=4, label_smoothing=0.05, class_weights=(1.0, 2.0, 4.0)),
        Pilot(SoftAD(0.3, sigma=0.1), seed=5, class_weights=(2.0, 1.0, 1.0)),
        Pilot(SoftAD("auto"), seed=7),
    ]
    results = train_stack(
        pilots, SPLITS, build, epochs=30, batch_size=25, optimizer=optimizer, learning_rate=0.02, patience=3
    )
    lengths = set()
    for result in results:
        check(result, alone(result.pilot, patience=3, epochs=30, optimizer=optimizer))
        lengths.add(len(result.validation))
    # Models that are over leave the stack while others go on: this must have happened here.
    assert len(lengths) > 2


def test_theta_auto_is_that_of_fit() -> None:
    pilot = Pilot(SoftAD("auto"), seed=1)
    (result, _) = train_stack([pilot, Pilot(Mean(), seed=1)], SPLITS, build, epochs=5, batch_size=25)
    criterion = SoftAD("auto")
    split = SPLITS[0]
    fit(
        build(1), split.features, split.targets, criterion=criterion, epochs=5, batch_size=25, seed=1,
        validation=(split.validation_features, split.validation_targets),
    )  # fmt: skip
    assert result.theta == pytest.approx(criterion.theta, rel=1e-4)
    assert pilot.criterion.theta == "auto"


def test_regression() -> None:
    x = SPLITS[0].features
    rows = Split(x[:80], x[:80, 0] * 2, x[80:], x[80:, 0] * 2)

    def network(seed: int) -> nn.Module:
        return build_model("mlp", inputs=(4,), outputs=1, hidden=(8,), seed=seed)

    pilots = [Pilot(Mean()), Pilot(SoftAD(0.1))]
    results = train_stack(pilots, [rows], network, base_loss="squared", epochs=10, batch_size=20)
    for result in results:
        expected = fit(
            network(0), rows.features, rows.targets, criterion=result.pilot.criterion, base_loss="squared", epochs=10,
            batch_size=20, validation=(rows.validation_features, rows.validation_targets),
        )  # fmt: skip
        np.testing.assert_allclose(result.validation, [e.validation for e in expected.history], rtol=1e-3)


def test_class_weights_for_a_class_that_no_row_has() -> None:
    split = SPLITS[0]
    rows = Split(
        split.features,
        split.targets.clamp(max=1),
        split.validation_features,
        split.validation_targets.clamp(max=1),
    )
    weights = (1.0, 2.0, 7.0)
    results = train_stack([Pilot(Mean(), class_weights=weights), Pilot(Mean())], [rows], build, epochs=2)
    assert not any(result.diverged for result in results)


def test_divergence_of_one_model_leaves_the_others_alone() -> None:
    class Brittle(nn.Module):
        """Multiplies by a weight that seed 13 makes huge."""

        def __init__(self, seed: int) -> None:
            super().__init__()
            self.inner = build(seed)
            self.factor = nn.Parameter(torch.tensor(1e38 if seed == 13 else 1.0))

        def forward(self, rows: Tensor) -> Tensor:
            return self.inner(rows) * self.factor * self.factor

    results = train_stack([Pilot(Mean(), seed=0), Pilot(Mean(), seed=13)], SPLITS, Brittle, epochs=5, patience=2)
    assert [result.diverged for result in results] == [False, True]


def test_nothing_is_begun_after_the_deadline() -> None:
    (result,) = train_stack([Pilot(Mean())], SPLITS, build, epochs=5, deadline=0.0)
    assert result.validation == ()
    assert not result.diverged


def test_a_network_with_batch_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match="buffers"):
        train_stack([Pilot(Mean())], SPLITS, lambda seed: nn.Sequential(nn.BatchNorm1d(4), build(seed)))


@pytest.mark.parametrize(("pilots", "message"), [([], "pilots: 0"), ([Pilot(Mean(), split=2)], "pilots: a split of 2")])
def test_bad_pilots(pilots: list[Pilot], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_stack(pilots, SPLITS, build)
