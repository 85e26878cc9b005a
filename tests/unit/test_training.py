"""The training loop: what a step does, the same bits by seed and after an interruption, and what ends a training."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from softad.augmentation import flip_and_shift
from softad.calibration import cross_entropies
from softad.criteria import CVaR, Mean, SoftAD
from softad.models import build_model
from softad.training import Epoch, FitResult, TrainingDiverged, fit, outputs_of


def two_classes(rows: int = 300, noise: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4)).astype(np.float32)
    return x, (x[:, 0] - x[:, 1] + noise * rng.normal(size=rows) > 0).astype(np.int64)


def mlp(seed: int = 0, outputs: int = 2) -> nn.Module:
    return build_model("mlp", inputs=(4,), outputs=outputs, hidden=(16,), seed=seed)


class WithDropout(nn.Module):
    """Draws random numbers in training, and has buffers: both must survive an interruption."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))

    def forward(self, rows: Tensor) -> Tensor:
        return self.layers(rows)


def with_dropout() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return WithDropout()


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def untimed(result: FitResult) -> list[Epoch]:
    return [replace(epoch, seconds=0.0) for epoch in result.history]


@pytest.mark.parametrize("model", ["linear", "mlp"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_it_learns(model: str, optimizer: str) -> None:
    x, y = two_classes()
    network = build_model(model, inputs=(4,), outputs=2, hidden=(16,), seed=0)
    result = fit(network, x, y, epochs=30, optimizer=optimizer, learning_rate=0.03)
    assert result.model is network
    assert not network.training
    assert (outputs_of(network, x).argmax(1).numpy() == y).mean() > 0.85
    assert len(result.history) == result.best_epoch == 30
    assert result.temperature == 1.0


def test_a_small_cnn_learns_where_a_bright_spot_is() -> None:
    rng = np.random.default_rng(0)
    x = 0.3 * rng.normal(size=(200, 3, 16, 16)).astype(np.float32)
    y = rng.integers(0, 2, 200)
    x[y == 1, :, 4:9, 4:9] += 1.5
    network = build_model("cnn", inputs=(3, 16, 16), outputs=2, hidden=(16,), seed=0)
    fit(network, x[:150], y[:150], epochs=6, batch_size=16, augment=True, threads=1)
    assert (outputs_of(network, x[150:]).argmax(1).numpy() == y[150:]).mean() > 0.9


def test_one_step_of_sgd_goes_down_the_criterion() -> None:
    x, y = two_classes(50)
    network = mlp()
    before = weights(network)
    criterion = SoftAD(theta=0.3, transform=CVaR(0.5))
    loss = criterion(nn.functional.cross_entropy(network(torch.tensor(x)), torch.tensor(y), reduction="none"))
    gradient = torch.autograd.grad(loss, list(network.parameters()))
    result = fit(
        network,
        x,
        y,
        criterion=criterion,
        epochs=1,
        batch_size=50,
        optimizer="sgd",
        learning_rate=0.1,
        weight_decay=0.0,
    )
    assert result.history[0].objective == pytest.approx(loss.item())
    for (name, weight), slope in zip(network.named_parameters(), gradient, strict=True):
        torch.testing.assert_close(weight.detach(), before[name] - 0.1 * slope)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_step_does_not_grow_with_sigma(optimizer: str) -> None:
    # At theta -> -inf the gradient is sigma times ERM's, so dividing the step by sigma gives ERM's training back.
    x, y = two_classes()
    plain, scaled = mlp(), mlp()
    for network, criterion in ((plain, Mean()), (scaled, SoftAD(theta=-1e7, sigma=16.0))):
        fit(network, x, y, criterion=criterion, epochs=3, optimizer=optimizer, learning_rate=0.01, clip=0.5)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(scaled.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_clip_bounds_the_step() -> None:
    x, y = two_classes(50)
    network = mlp()
    before = weights(network)
    fit(
        network, 1e4 * x, y, epochs=1, batch_size=50, optimizer="sgd", learning_rate=0.5, weight_decay=0.0,
        momentum=0.0, clip=0.1,
    )  # fmt: skip
    moved = math.sqrt(sum(float((value - before[name]).square().sum()) for name, value in network.state_dict().items()))
    assert moved == pytest.approx(0.05, rel=1e-3)


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_state_alone() -> None:
    x, y = two_classes()
    networks = [with_dropout() for _ in range(3)]
    torch.manual_seed(11)
    state = torch.get_rng_state()
    fit(networks[0], x, y, epochs=3, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)  # of no influence
    fit(networks[1], x, y, epochs=3, seed=5)
    fit(networks[2], x, y, epochs=3, seed=6)
    assert same_bits(networks[0], networks[1])
    assert not same_bits(networks[0], networks[2])


def test_threads_are_set_for_the_training_and_restored_even_after_an_error() -> None:
    x, y = two_classes(40)
    before = torch.get_num_threads()
    seen = []
    fit(mlp(), x, y, epochs=1, threads=1, progress=lambda epoch: seen.append(torch.get_num_threads()))

    def stop(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(mlp(), x, y, epochs=2, threads=1, progress=stop)
    assert seen == [1]
    assert torch.get_num_threads() == before


@given(rows=st.integers(1, 60), size=st.integers(1, 20))
@settings(max_examples=30)
def test_every_row_is_seen_once_an_epoch_and_no_row_is_alone(rows: int, size: int) -> None:
    x = np.arange(rows, dtype=np.float32)[:, None].repeat(4, axis=1)
    batches: list[list[float]] = []

    def record(batch: Tensor, generator: torch.Generator) -> Tensor:
        batches.append(batch[:, 0].tolist())
        return batch / rows

    fit(mlp(), x, np.zeros(rows, dtype=int), epochs=2, batch_size=size, augment=record)
    half = len(batches) // 2
    for epoch in (batches[:half], batches[half:]):
        assert sorted(chain(*epoch)) == list(range(rows))
        assert all(len(batch) in (size, size + 1) for batch in epoch[:-1])
        assert size == 1 or rows == 1 or all(len(batch) > 1 for batch in epoch)
    if rows > 20:
        assert list(chain(*batches[:half])) != list(chain(*batches[half:]))


def test_early_stopping_takes_the_weights_of_the_best_epoch() -> None:
    x, y = two_classes(80, noise=2.0)
    held = two_classes(200, noise=2.0, seed=1)
    network = build_model("mlp", inputs=(4,), outputs=2, hidden=(64, 64), seed=0)
    result = fit(network, x, y, validation=held, epochs=200, patience=6, learning_rate=0.01, calibrate=False)
    losses = [epoch.validation for epoch in result.history]
    assert result.stopped_early
    assert len(losses) == result.best_epoch + 6 < 200
    assert losses[result.best_epoch - 1] == min(losses)
    assert [epoch.number for epoch in result.history if epoch.best][-1] == result.best_epoch
    kept = cross_entropies(outputs_of(network, held[0]), held[1]).mean()
    assert kept == pytest.approx(min(losses), rel=1e-5)


def test_without_patience_the_last_weights_stay() -> None:
    x, y = two_classes(80, noise=2.0)
    held = two_classes(200, noise=2.0, seed=1)
    network = build_model("mlp", inputs=(4,), outputs=2, hidden=(64, 64), seed=0)
    result = fit(network, x, y, validation=held, epochs=60, learning_rate=0.01)
    assert not result.stopped_early
    assert result.best_epoch < len(result.history) == 60
    last = cross_entropies(outputs_of(network, held[0]), held[1]).mean()
    assert last == pytest.approx(result.history[-1].validation, rel=1e-5)
    # An overfit network is too sure of itself; the temperature takes that back.
    assert result.temperature > 1.5
    assert cross_entropies(outputs_of(network, held[0]), held[1], result.temperature).mean() < last - 0.1


def test_a_training_that_lasts_to_its_last_epoch_did_not_stop_early() -> None:
    x, y = two_classes()
    result = fit(mlp(), x, y, validation=(x, y), epochs=3, patience=5)
    assert (result.stopped_early, len(result.history)) == (False, 3)


class Stop(Exception):
    """Stands for whatever ends a process."""


def stop_after(number: int):
    def stop(epoch: Epoch) -> None:
        if epoch.number == number:
            raise Stop

    return stop


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", lambda weights, rate: torch.optim.RMSprop(weights, lr=rate)])
@pytest.mark.parametrize("stops", [(1,), (3, 5), (9,)])
def test_a_training_taken_up_again_ends_with_the_same_bits(optimizer, stops: tuple[int, ...], tmp_path: Path) -> None:
    x, y = two_classes(130)
    arguments = {
        "criterion": SoftAD(theta=0.2, transform=CVaR(0.4)), "validation": two_classes(60, seed=1), "epochs": 9,
        "patience": 4, "batch_size": 32, "optimizer": optimizer, "learning_rate": 0.02, "seed": 4,
    }  # fmt: skip
    whole = fit(with_dropout(), x, y, **arguments)
    path = tmp_path / "deep" / "training.ckpt"
    for number in stops:
        with pytest.raises(Stop):
            fit(with_dropout(), x, y, **arguments, checkpoint=path, progress=stop_after(number))
    numbers: list[int] = []
    resumed = fit(
        with_dropout(), x, y, **arguments, checkpoint=path, progress=lambda epoch: numbers.append(epoch.number)
    )
    assert numbers == list(range(stops[-1] + 1, len(whole.history) + 1))
    assert same_bits(whole.model, resumed.model)
    assert untimed(whole) == untimed(resumed)
    assert (whole.temperature, whole.best_epoch) == (resumed.temperature, resumed.best_epoch)
    assert [entry.name for entry in path.parent.iterdir()] == ["training.ckpt"]


def test_more_epochs_may_be_asked_for_than_before(tmp_path: Path) -> None:
    x, y = two_classes(100)
    short, long, whole = mlp(), mlp(), mlp()
    fit(short, x, y, epochs=2, checkpoint=tmp_path / "c")
    fit(long, x, y, epochs=5, checkpoint=tmp_path / "c")
    fit(whole, x, y, epochs=5)
    assert same_bits(long, whole)
    with pytest.raises(ValueError, match=r"epochs: 3; allowed: at least the 5"):
        fit(mlp(), x, y, epochs=3, checkpoint=tmp_path / "c")


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    x, y = two_classes(100)
    first = fit(mlp(), x, y, epochs=3, checkpoint=tmp_path / "c")
    calls: list[Epoch] = []
    again = fit(mlp(), x, y, epochs=3, checkpoint=tmp_path / "c", progress=calls.append)
    assert not calls
    assert same_bits(first.model, again.model)
    assert first.history == again.history


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "numbers"),
        ({"learning_rate": 0.5}, "numbers"),
        ({"criterion": SoftAD(theta=0.5)}, "criterion"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"validation": two_classes(30, seed=8)}, "data"),
        ({"augment": lambda batch, generator: batch}, "augment"),
    ],
)
def test_the_checkpoint_of_another_training_is_refused(change, named: str, tmp_path: Path) -> None:
    x, y = two_classes(60)
    path = tmp_path / "c"
    fit(mlp(), x, y, epochs=1, checkpoint=path)
    kept = path.read_bytes()
    with pytest.raises(ValueError, match=rf"another training \({named} differ\); delete it"):
        fit(mlp(), x, y, epochs=1, checkpoint=path, **change)
    with pytest.raises(ValueError, match=r"another training \(data differ\)"):
        fit(mlp(), x + 1e-3, y, epochs=1, checkpoint=path)
    with pytest.raises(ValueError, match=r"another training \(.*weights.* differ\)"):
        fit(build_model("linear", inputs=(4,), outputs=2), x, y, epochs=1, checkpoint=path)
    assert path.read_bytes() == kept


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_damaged_checkpoint_is_named(content: bytes | None, tmp_path: Path) -> None:
    x, y = two_classes(60)
    path = tmp_path / "c"
    fit(mlp(), x, y, epochs=1, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-7] if content is None else content)
    with pytest.raises(ValueError, match=r"this is no checkpoint, or it is damaged .*; delete it"):
        fit(mlp(), x, y, epochs=2, checkpoint=path)


TRAIN = """
import sys, numpy as np
from pathlib import Path
from softad.models import build_model
from softad.training import fit
rng = np.random.default_rng(0)
x = rng.normal(size=(2000, 4)).astype(np.float32)
network = build_model("mlp", inputs=(4,), outputs=2, hidden=(16,), seed=0)
fit(network, x, (x[:, 0] > 0).astype(int), epochs=int(sys.argv[2]), batch_size=20, threads=1,
    checkpoint=Path(sys.argv[1]))
"""


def test_a_killed_process_leaves_a_checkpoint_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "training.ckpt"
    process = subprocess.Popen([sys.executable, "-c", TRAIN, str(path), "10000"])
    try:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.5)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    numbers: list[int] = []

    def stop(epoch: Epoch) -> None:
        numbers.append(epoch.number)
        raise Stop

    resumed, whole = mlp(), mlp()
    with pytest.raises(Stop):
        fit(resumed, x, y, epochs=10000, batch_size=20, threads=1, checkpoint=path, progress=stop)
    assert numbers[0] > 1
    fit(whole, x, y, epochs=numbers[0], batch_size=20, threads=1)
    assert same_bits(resumed, whole)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path, monkeypatch) -> None:
    x, y = two_classes(60)
    path = tmp_path / "c"
    fit(mlp(), x, y, epochs=1, checkpoint=path)
    kept = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        fit(mlp(), x, y, epochs=2, checkpoint=path)
    assert path.read_bytes() == kept
    assert [entry.name for entry in tmp_path.iterdir()] == ["c"]


def test_a_loss_that_is_not_finite_names_epoch_step_and_loss() -> None:
    x, y = two_classes(100)
    calls = iter(range(100))

    def breaks_at_the_eighth(losses: Tensor) -> Tensor:
        return losses.mean() * (math.inf if next(calls) == 7 else 1.0)

    with pytest.raises(
        TrainingDiverged, match="epoch 2, step 3: the objective is inf; lower the learning rate"
    ) as info:
        fit(mlp(), x, y, criterion=breaks_at_the_eighth, batch_size=20, epochs=5)
    assert (info.value.epoch, info.value.step, info.value.loss) == (2, 3, math.inf)


def test_a_learning_rate_far_too_large_is_noticed() -> None:
    x, y = two_classes(100)
    with pytest.raises(TrainingDiverged):
        fit(mlp(outputs=1), x, y, base_loss="squared", optimizer="sgd", learning_rate=1e12, epochs=5)


@pytest.mark.parametrize(
    "base_loss", ["squared", "absolute", "huber", lambda outputs, y: (outputs[:, 0] - y).cosh().log()]
)
def test_regression(base_loss) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4)).astype(np.float32)
    y = 2.0 * x[:, 0] - x[:, 1] + 0.5
    network = build_model("linear", inputs=(4,), outputs=1, seed=0)
    result = fit(network, x, y, base_loss=base_loss, epochs=60, learning_rate=0.05, validation=(x, y))
    np.testing.assert_allclose(network[1].weight.detach().numpy(), [[2.0, -1.0, 0.0, 0.0]], atol=0.05)
    assert network[1].bias.item() == pytest.approx(0.5, abs=0.05)
    assert result.temperature == 1.0


def test_read_only_arrays_and_tensors_train_alike() -> None:
    x, y = two_classes(60)
    x.flags.writeable = False
    networks = mlp(), mlp()
    fit(networks[0], x, y, epochs=2)
    fit(networks[1], torch.tensor(x), torch.tensor(y), epochs=2)
    assert same_bits(*networks)


def test_flip_and_shift_moves_pixels_and_invents_none() -> None:
    images = torch.arange(2 * 3 * 32 * 32, dtype=torch.float32).reshape(2, 3, 32, 32)
    drawn = [flip_and_shift(images, torch.Generator().manual_seed(seed)) for seed in range(20)]
    for image in drawn:
        assert image.shape == images.shape
        assert set(image[1].flatten().tolist()) <= set(images[1].flatten().tolist())
    assert len({tuple(image.flatten().tolist()) for image in drawn}) > 10
    assert any(float(image[0, 0, 16, 10] - image[0, 0, 16, 11]) > 0 for image in drawn)  # left to right


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs: 0; allowed"),
        ({"batch_size": 0}, "batch_size: 0; allowed"),
        ({"learning_rate": 0.0}, "learning_rate: 0.0; allowed"),
        ({"learning_rate": math.nan}, "learning_rate: nan; allowed"),
        ({"weight_decay": -1.0}, "weight_decay: -1.0; allowed"),
        ({"momentum": 1.0}, "momentum: 1.0; allowed"),
        ({"clip": 0.0}, "clip: 0.0; allowed"),
        ({"patience": 3}, "patience: 3; allowed: None where there are no validation rows"),
        ({"patience": 0, "validation": two_classes(9)}, "patience: 0; allowed"),
        ({"threads": 0}, "threads: 0; allowed"),
        ({"optimizer": "adam"}, "optimizer: 'adam'; allowed"),
        ({"base_loss": "cross"}, "base_loss: 'cross'; allowed"),
        ({"base_loss": "squared"}, r"model: \(2,\) values a row with 'squared'; allowed: one"),
        ({"base_loss": lambda outputs, y: outputs.mean()}, r"base_loss: shape \(\) for one row; allowed"),
        ({"augment": True}, r"augment: True with features of shape \(40, 4\); allowed: images"),
        ({"validation": (np.zeros((0, 4)), np.zeros(0, int))}, r"validation: shape \(0, 4\); allowed"),
    ],
)
def test_arguments_out_of_range_are_named(change, message: str) -> None:
    x, y = two_classes(40)
    with pytest.raises(ValueError, match=f"^{message}"):
        fit(mlp(), x, y, **change)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: (x, y[:-1]), r"targets: shape \(39,\); allowed: \(40,\)"),
        (lambda x, y: (x, y + 1), "targets: class numbers 1 to 2 for outputs"),
        (lambda x, y: (x, y - 1), "targets: class numbers -1 to 0"),
        (lambda x, y: (x, y.astype(float)), "targets: dtype torch.float64 with cross-entropy"),
        (lambda x, y: (np.where(x > 2, np.nan, x), y), "features: holds values that are not finite"),
        (lambda x, y: (x[:, 0], y), r"features: shape \(40,\); allowed"),
    ],
)
def test_data_that_do_not_fit_are_named(spoil, message: str) -> None:
    x, y = spoil(*two_classes(40))
    with pytest.raises(ValueError, match=f"^{message}"):
        fit(mlp(), x, y)
    good = two_classes(40)
    with pytest.raises(
        ValueError, match=f"^{message.replace('targets', 'validation').replace('features', 'validation')}"
    ):
        fit(mlp(), *good, validation=(x, y))
