"""The exported graph answers as the bundle does: every kind of network and column, and rows that nobody expects."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from flows.export import export_agrees
from softad.bundle import ModelBundle, train_bundle
from softad.contract import breaches
from softad.export import OnnxModel, largest_difference, raw_inputs, to_onnx
from tests.unit import own_networks

ROWS = 300
COLUMNS: dict[str, Any] = {"numeric": ["x", "y", "same"], "categorical": ["machine", "lot"]}
ODD = pd.DataFrame({
    "x": [1e300, np.nan, -5.0, 1e9, 0.0], "y": [np.inf, -1e9, np.nan, 0.0, -np.inf],
    "same": [5.0, np.nan, 1.0, 1.0, 1.0],
    "machine": ["M9", None, "M1", "M2", "品"], "lot": [None, "zz", "a", "b", ""],
})  # fmt: skip


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    drawn = np.random.default_rng(0)
    made = pd.DataFrame({
        "x": drawn.normal(size=ROWS) * 1e6 + 1e9, "y": drawn.normal(size=ROWS), "same": 1.0,
        "machine": drawn.choice(["M1", "M2", None], ROWS), "lot": drawn.choice(["a", "b", "品"], ROWS),
    })  # fmt: skip
    made.loc[::7, "y"] = np.nan
    return made


def trained(frame: pd.DataFrame, **changes: Any) -> ModelBundle:
    labels = np.where(frame["x"] > 1e9, "bad", "ok")
    known = {"task": "classification", "classes": ["ok", "bad"], "epochs": 2, **COLUMNS} | changes
    return train_bundle(frame, labels, frame, labels, **known)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "linear"},
        {"model": "mlp", "hidden": (8, 8)},
        {"model": "mlp", "embedding": "auto"},
        {"categorical": []},
        {"numeric": []},
    ],
    ids=["linear", "mlp", "learnt vectors", "numbers only", "words only"],
)
def test_classes(frame: pd.DataFrame, changes: dict[str, Any]) -> None:
    bundle = trained(frame, **changes)
    exported = OnnxModel(to_onnx(bundle, {"version": "7"}), threads=1)
    for rows in (frame, frame.head(1), ODD, frame.head(0)):
        assert largest_difference(bundle, exported, rows) <= 1e-5
    assert exported.run(raw_inputs(bundle, pd.concat([frame] * 20))).shape == (20 * ROWS, 2)
    assert exported.about["version"] == "7" and exported.about["classes"] == ["ok", "bad"]
    assert exported.about["digest"] == bundle.digest()
    assert bundle.temperature != 1.0 and exported.about["temperature"] == bundle.temperature


def test_a_number_in_the_labels_unit(frame: pd.DataFrame) -> None:
    target = frame["y"].fillna(0.0).to_numpy() * 3.0 + 100.0
    bundle, _ = train_bundle(
        frame, target, frame, target, task="regression", classes=None, epochs=2, model="linear", **COLUMNS
    )
    exported = OnnxModel(to_onnx(bundle), threads=1)
    assert largest_difference(bundle, exported, frame) <= 1e-5
    assert exported.run(raw_inputs(bundle, frame)).shape == (ROWS,)
    assert exported.about["output"] == "value"


def test_pictures_beside_numbers(frame: pd.DataFrame) -> None:
    def png(seed: int) -> bytes:
        buffer = io.BytesIO()
        drawn = np.random.default_rng(seed).integers(0, 255, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(drawn).save(buffer, "PNG")
        return buffer.getvalue()

    few = frame.head(40).assign(picture=[png(seed) for seed in range(40)])
    bundle = trained(few, numeric=["x", "y"], categorical=[], image="picture", image_size=16, model="cnn", epochs=1)
    found = export_agrees(bundle, few)
    assert found.agrees and found.rows == 40 and found.seconds_one_row is not None and found.content
    assert breaches(bundle.preprocessor, few.drop(columns="picture"))[0].startswith("picture: the column is missing")


def test_a_network_of_the_plants_own(frame: pd.DataFrame) -> None:
    assert export_agrees(trained(frame, model=f"{own_networks.NAME}:good", epochs=1), frame).agrees
    found = export_agrees(trained(frame, model=f"{own_networks.NAME}:wayward", epochs=1), frame)
    assert not found.agrees and found.content is None
    named = f"{own_networks.NAME}:wayward"
    assert found.reason.startswith(f"torch cannot express the network '{named}' as an ONNX graph (")
    assert "\n" not in found.reason


def test_answers_that_differ_are_found(frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = trained(frame, model="linear")
    run = OnnxModel.run
    monkeypatch.setattr(OnnxModel, "run", lambda self, given: run(self, given) + 2e-5)
    found = export_agrees(bundle, frame)
    assert not found.agrees and "differs by at most 2e-05; allowed: 1e-05" in found.reason
    monkeypatch.setattr(OnnxModel, "run", lambda self, given: run(self, given) * np.nan)
    assert export_agrees(bundle, frame).difference == float("inf")
    assert not export_agrees(bundle, frame.head(0)).agrees


def test_what_it_says_of_itself_is_enough_to_use_it(frame: pd.DataFrame) -> None:
    """As a program would that knows onnxruntime and JSON, and nothing of us."""
    import onnxruntime

    bundle = trained(frame, model="linear")
    session = onnxruntime.InferenceSession(to_onnx(bundle), providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["softad"])
    row = {"x": 1.0e9, "y": float("nan"), "same": 1.0, "machine": "M2", "lot": "品"}
    numbers = [[row[name] for name in about["inputs"]["numbers"]["columns"]]]
    words = [[row[name] for name in about["inputs"]["words"]["columns"]]]
    (said,) = session.run([about["output"]], {"numbers": np.array(numbers), "words": np.array(words, dtype=object)})
    assert said == pytest.approx(bundle.predict(pd.DataFrame([row])).probabilities, abs=1e-5)
    (x,) = (column for column in about["contract"]["columns"] if column["name"] == "x")
    assert x["type"] == "number" and x["low"] == frame["x"].min() and x["high"] == frame["x"].max()
