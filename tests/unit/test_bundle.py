"""The bundle: what it predicts, that it comes back the same from disk, and that nothing in it is pickled."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from softad.bundle import ModelBundle, _load_pyfunc, prepare, train_bundle, train_prepared
from softad.bundle_files import DOCUMENT, WEIGHTS
from softad.criteria import SoftAD


def parts(rows: int = 400, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "x1": 1e7 * rng.normal(size=rows),
            "x2": rng.normal(size=rows),
            "machine": rng.choice(["M1", "M2", "M3"], rows),
        }
    )
    frame.loc[rng.random(rows) < 0.05, "x2"] = np.nan
    score = frame["x1"] / 1e7 + (frame["machine"] == "M2") + 0.3 * rng.normal(size=rows)
    return frame, np.where(score > 0.5, "defect", "良品")


COLUMNS = {"numeric": ["x1", "x2"], "categorical": ["machine"]}


def classifier(**changes) -> ModelBundle:
    arguments = {
        "task": "classification", "classes": ["良品", "defect"], **COLUMNS, "hidden": (16,), "epochs": 20,
        "learning_rate": 0.01, "threads": 1,
    } | changes  # fmt: skip
    return train_bundle(*parts(), *parts(150, 1), **arguments)[0]


def regressor(**changes) -> ModelBundle:
    (frame, _), (held, _) = parts(), parts(150, 1)
    arguments = {
        "task": "regression", "classes": None, **COLUMNS, "model": "linear", "epochs": 60, "learning_rate": 0.05,
        "threads": 1,
    } | changes  # fmt: skip
    return train_bundle(frame, number(frame), held, number(held).astype(str), **arguments)[0]


def number(frame: pd.DataFrame) -> np.ndarray:
    return 500.0 + 30.0 * frame["x1"].to_numpy() / 1e7 + 10.0 * (frame["machine"] == "M2").to_numpy()


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    return classifier()


def test_a_classifier_names_classes_with_calibrated_probabilities(bundle: ModelBundle) -> None:
    frame, labels = parts(500, 2)
    said = bundle.predict(frame)
    assert said.values is None
    assert said.labels is not None
    assert said.probabilities is not None
    assert (said.labels == labels).mean() > 0.85
    assert said.probabilities.shape == (500, 2)
    np.testing.assert_allclose(said.probabilities.sum(axis=1), 1.0)
    assert said.labels.tolist() == [["良品", "defect"][k] for k in said.probabilities.argmax(axis=1)]
    # Among the rows called a defect with about .7 probability, about .7 are: within sampling noise.
    confident = said.probabilities.max(axis=1)
    assert confident.mean() == pytest.approx((said.labels == labels).mean(), abs=0.06)


def test_row_losses_are_minus_the_logarithm_of_the_true_class(bundle: ModelBundle) -> None:
    frame, labels = parts(200, 2)
    said = bundle.predict(frame)
    true = said.probabilities[np.arange(200), [["良品", "defect"].index(label) for label in labels]]
    np.testing.assert_allclose(bundle.row_losses(frame, labels), -np.log(true), rtol=1e-6)
    np.testing.assert_allclose(
        bundle.row_losses(frame, pd.Series(labels, index=range(5, 205))), -np.log(true), rtol=1e-6
    )


def test_a_row_that_is_sure_and_wrong_has_a_finite_loss(bundle: ModelBundle) -> None:
    outputs = np.array([[-2000.0, 2000.0]])
    loss = bundle.losses_of(outputs, ["良品"])
    assert loss[0] == pytest.approx(4000.0 / bundle.temperature)


def test_a_regressor_speaks_in_the_unit_of_the_label_and_its_losses_in_none() -> None:
    bundle = regressor()
    frame, _ = parts(300, 2)
    said = bundle.predict(frame)
    assert said.labels is None
    assert said.probabilities is None
    assert np.abs(said.values - number(frame)).mean() < 6.0
    losses = bundle.row_losses(frame, number(frame))
    deviation = np.std(number(parts()[0]))
    np.testing.assert_allclose(losses, ((said.values - number(frame)) / deviation) ** 2, atol=1e-9)
    np.testing.assert_allclose(bundle.row_losses(frame, [str(v) for v in number(frame)]), losses)


def test_a_constant_regression_target_does_not_divide_by_zero() -> None:
    frame, _ = parts(60)
    bundle, _ = train_bundle(
        frame, np.full(60, 7.0), frame, np.full(60, 7.0), task="regression", classes=None, **COLUMNS, epochs=5
    )
    assert np.isfinite(bundle.predict(frame).values).all()


def test_warnings_come_with_the_predictions(bundle: ModelBundle) -> None:
    said = bundle.predict(pd.DataFrame({"x1": [0.0, 9.1e19], "x2": [0.0, None], "machine": ["M1", "M99"]}))
    assert said.warnings[0] == ""
    assert "machine: M99 was never seen in training" in said.warnings[1]
    assert "x1: 9.1e+19 is outside the training range" in said.warnings[1]


def test_no_rows_are_no_error(bundle: ModelBundle) -> None:
    frame, _ = parts(5)
    said = bundle.predict(frame.iloc[:0])
    assert (len(said.labels), said.probabilities.shape, said.warnings) == (0, (0, 2), [])
    assert bundle.row_losses(frame.iloc[:0], []).shape == (0,)


@pytest.mark.parametrize("make", [classifier, regressor, lambda: classifier(model="linear", criterion=SoftAD(0.2))])
def test_a_saved_bundle_comes_back_the_same(make, tmp_path: Path) -> None:
    bundle = make()
    bundle.save(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [DOCUMENT, WEIGHTS]
    loaded = ModelBundle.load(tmp_path / "model")
    frame, _ = parts(50, 3)
    np.testing.assert_array_equal(loaded.outputs(frame), bundle.outputs(frame))
    assert loaded.digest() == bundle.digest()
    assert (loaded.temperature, loaded.target_scale) == (bundle.temperature, bundle.target_scale)
    loaded.save(tmp_path / "again")
    for name in (DOCUMENT, WEIGHTS):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


@pytest.mark.parametrize(("model", "embedding", "width"), [("mlp", "auto", 3), ("linear", 5, 5)])
def test_categories_as_learnt_vectors_travel_too(
    model: str, embedding: Literal["auto"] | int, width: int, tmp_path: Path
) -> None:
    bundle = classifier(model=model, embedding=embedding)
    vectors = [value for name, value in bundle.model.state_dict().items() if value.shape[1:] == (width,)]
    assert [len(value) for value in vectors] == [3 + 1], "three machines, and one for all others"
    frame, truth = parts(200, 2)
    again = ModelBundle.load(bundle.save(tmp_path / "model"))
    assert again.digest() == bundle.digest()
    assert (again.outputs(frame) == bundle.outputs(frame)).all()
    assert (bundle.predict(frame).labels == truth).mean() > 0.7
    strange = bundle.predict(frame.assign(machine="M99"))
    assert strange.warnings[0].endswith("machine: M99 was never seen in training")
    assert np.isfinite(strange.probabilities).all()


def test_the_digest_changes_with_weights_and_with_what_goes_with_them(bundle: ModelBundle) -> None:
    from dataclasses import replace

    digests = {bundle.digest(), replace(bundle, temperature=9.0).digest(), replace(bundle, metadata={"a": 1}).digest()}
    digests.add(classifier(seed=1).digest())
    assert len(digests) == 4
    assert classifier().digest() == bundle.digest()


def test_loading_unpickles_nothing_and_runs_in_a_fresh_process(bundle: ModelBundle, tmp_path: Path) -> None:
    bundle.save(tmp_path)
    frame, _ = parts(20, 4)
    frame.to_parquet(tmp_path / "rows.parquet")
    code = """
import sys, pickle, numpy as np, pandas as pd
from pathlib import Path
from softad.bundle import ModelBundle
def refuse(*args, **kwargs): raise AssertionError("something was unpickled")
pickle.load = pickle.loads = refuse
pickle.Unpickler = pickle._Unpickler = refuse
folder = Path(sys.argv[1])
outputs = ModelBundle.load(folder).outputs(pd.read_parquet(folder / "rows.parquet"))
np.save(folder / "out.npy", outputs, allow_pickle=False)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), bundle.outputs(frame))
    for name in (DOCUMENT, WEIGHTS):
        with pytest.raises(pickle.UnpicklingError):
            pickle.loads((tmp_path / name).read_bytes())


def damage_weights(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def newer(folder: Path) -> None:
    document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    (folder / DOCUMENT).write_text(json.dumps({**document, "format": 7}))


def other_factory(folder: Path) -> None:
    document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    document["model_spec"]["name"] = "no_such_package.models:net"
    (folder / DOCUMENT).write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (damage_weights, "weights.safetensors is not the file that was saved with bundle.json"),
        (lambda folder: (folder / WEIGHTS).unlink(), "no model bundle can be read there"),
        (lambda folder: (folder / DOCUMENT).write_text("{"), "the model bundle cannot be loaded"),
        (lambda folder: (folder / DOCUMENT).write_text("[]"), "the model bundle cannot be loaded"),
        (newer, "format 7, made by another version; this one reads 1"),
        (other_factory, "'no_such_package.models:net' cannot be imported"),
    ],
)
def test_a_bundle_that_cannot_be_loaded_says_why(bundle: ModelBundle, spoil, message: str, tmp_path: Path) -> None:
    bundle.save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message):
        ModelBundle.load(tmp_path)


OWN = """
from torch import nn
class Net(nn.Module):
    def __init__(self, d, k):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(d, 8), nn.BatchNorm1d(8), nn.Linear(8, k)
    def forward(self, rows):
        return self.last(self.norm(self.first(rows)).tanh())
def make(inputs, outputs):
    return Net(inputs[0], outputs)
def nothing(inputs, outputs):
    return 3
"""


def test_a_network_of_the_plants_own_travels_by_name(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "plant_networks.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    bundle = classifier(model="plant_networks:make")
    frame, labels = parts(300, 2)
    assert (bundle.predict(frame).labels == labels).mean() > 0.8
    loaded = ModelBundle.load(bundle.save(tmp_path / "model"))
    assert type(loaded.model).__name__ == "Net"
    np.testing.assert_array_equal(loaded.outputs(frame), bundle.outputs(frame))
    with pytest.raises(ValueError, match="name: 'plant_networks:nothing' returned a int"):
        classifier(model="plant_networks:nothing")


def test_mlflow_loads_the_bundle_as_a_python_function(bundle: ModelBundle, tmp_path: Path) -> None:
    frame, _ = parts(20, 4)
    frame.index = range(100, 120)
    answer = _load_pyfunc(str(bundle.save(tmp_path))).predict(frame)
    assert list(answer.columns) == ["prediction", "probability_良品", "probability_defect", "warnings"]
    assert list(answer.index) == list(frame.index)
    assert answer["prediction"].tolist() == bundle.predict(frame).labels.tolist()
    values = _load_pyfunc(str(regressor().save(tmp_path / "r"))).predict(frame)
    assert list(values.columns) == ["prediction", "warnings"]


def spots(rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray, dict[str, bytes]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows)
    files = {}
    for row, label in enumerate(labels):
        pixels = rng.integers(0, 90, (24, 24, 3), dtype=np.uint8)
        if label:
            pixels[6:12, 8:16] = 240
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        files[f"{row}.png"] = buffer.getvalue()
    return pd.DataFrame({"picture": list(files), "x": rng.normal(size=rows)}), labels.astype(str), files


@pytest.mark.parametrize("numeric", [[], ["x"]], ids=["pictures", "pictures and a table"])
def test_pictures_train_and_predict(numeric: list[str], tmp_path: Path) -> None:
    frame, labels, files = spots(120, 0)
    bundle, _ = train_bundle(
        frame[:80], labels[:80], frame[80:], labels[80:], task="classification", classes=["0", "1"], numeric=numeric,
        categorical=[], image="picture", image_size=16, images=files.__getitem__, model="cnn", hidden=(16,), epochs=12,
        batch_size=16, learning_rate=0.01, threads=1,
    )  # fmt: skip
    later, truth, more = spots(60, 1)
    assert (bundle.predict(later, more.__getitem__).labels == truth).mean() > 0.9
    loaded = ModelBundle.load(bundle.save(tmp_path))
    np.testing.assert_array_equal(loaded.outputs(later, more.__getitem__), bundle.outputs(later, more.__getitem__))


def test_prepared_rows_train_like_a_single_call() -> None:
    rows = (*parts(), *parts(150, 1))
    once = prepare(*rows, task="classification", classes=["良品", "defect"], **COLUMNS)
    trained, _ = train_prepared(once, hidden=(16,), epochs=20, learning_rate=0.01, threads=1)
    assert trained.digest() == classifier().digest()


def test_the_global_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    classifier(epochs=2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "ranking"}, "task: 'ranking'; allowed"),
        ({"classes": ["良品"]}, r"classes: \['良品'\] with classification"),
        ({"classes": ["良品", "bad"]}, "labels: 'defect' in row [0-9]+; allowed: 良品, bad"),
        ({"numeric": ["x3"]}, "x3: the column is missing"),
        ({"numeric": ["machine"], "categorical": []}, "machine: 'M[123]' in row 0; allowed: a number"),
        ({"model": "transformer"}, "name: 'transformer'; allowed: linear, mlp, cnn, or package.module:factory"),
        ({"model": "cnn"}, 'inputs: .* with "cnn"; allowed'),
        ({"hidden": (0,)}, r"inputs .*hidden \(0,\).*; allowed: sizes of at least 1"),
    ],
)
def test_arguments_that_do_not_fit_are_named(change, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        classifier(**change)


def test_labels_that_do_not_fit_are_named() -> None:
    frame, labels = parts(50)
    common = {"task": "classification", "classes": ["良品", "defect"], **COLUMNS}
    with pytest.raises(ValueError, match="labels_validation: 49 for 50 rows"):
        prepare(frame, labels, frame, labels[1:], **common)
    with pytest.raises(ValueError, match="labels_train: 0 for 0 rows"):
        prepare(frame[:0], labels[:0], frame, labels, **common)
    with pytest.raises(ValueError, match="labels: 'x' in row 49; allowed: finite numbers"):
        prepare(frame, [*range(49), "x"], frame, range(50), task="regression", classes=None, **COLUMNS)
    with pytest.raises(ValueError, match="labels: nan in row 0; allowed: finite numbers"):
        regressor().row_losses(frame[:1], [float("nan")])


@pytest.mark.real_data
def test_steel_plates_are_learnt_about_as_well_as_is_known(real_data: Path) -> None:
    frame = pd.read_csv(real_data / "steel_plates_faults" / "faults.csv")
    classes = list(frame.columns[-7:])
    labels = np.asarray(classes)[frame[classes].to_numpy().argmax(axis=1)]
    order = np.random.default_rng(0).permutation(len(frame))
    train, held, test = np.split(order, [int(0.6 * len(frame)), int(0.8 * len(frame))])
    bundle, result = train_bundle(
        frame.iloc[train], labels[train], frame.iloc[held], labels[held], task="classification", classes=classes,
        numeric=list(frame.columns[:-7]), categorical=[], criterion=SoftAD(theta=0.2), threads=1,
    )  # fmt: skip
    assert (bundle.predict(frame.iloc[test]).labels == labels[test]).mean() > 0.70  # .75 in the mean over splits
    assert bundle.row_losses(frame.iloc[test], labels[test]).mean() < 0.85  # the constant predictor has 1.7
    assert result.history[-1].number <= 60
