"""The gates on what a model is where it runs: above all, whether it can leave as a file that answers alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows.cost_gates import cost_gates, export_gate
from flows.settings import Promotion
from softad.bundle import ModelBundle, train_bundle
from softad.export import OnnxModel
from tests.unit import own_networks


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return pd.DataFrame({"x": np.random.default_rng(0).normal(size=200)})


def trained(frame: pd.DataFrame, **changes: Any) -> ModelBundle:
    labels = np.where(frame["x"] > 0.5, "bad", "ok")
    known: dict[str, Any] = {"task": "classification", "classes": ["ok", "bad"], "numeric": ["x"], "categorical": [],
                             "epochs": 1}  # fmt: skip
    return train_bundle(frame, labels, frame, labels, **known | changes)[0]


def test_every_limit_is_a_gate_and_null_is_none(frame: pd.DataFrame) -> None:
    bundle = trained(frame)
    gates = cost_gates(bundle, frame, Promotion())
    assert [(gate.name, gate.passed) for gate in gates] == [("latency", True), ("size", True), ("export", True)]
    assert gates[2].rows == 200 and gates[2].figure is not None and gates[2].figure <= 1e-5
    off = Promotion(row_ms=None, size_mb=None, export_tolerance=None)
    assert cost_gates(bundle, frame, off) == ()
    assert [gate.name for gate in cost_gates(bundle, frame.head(0), Promotion())] == ["size"]


def test_answers_that_differ_are_refused_at_the_tolerance_of_the_config(
    frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, run = trained(frame), OnnxModel.run
    monkeypatch.setattr(OnnxModel, "run", lambda self, given: run(self, given) + 1e-4)
    gate = export_gate(bundle, frame, Promotion())
    assert not gate.passed and gate.gated and "differs by at most 0.0001; allowed: 1e-05" in gate.reason
    assert export_gate(bundle, frame, Promotion(export_tolerance=1e-3)).passed


def test_a_network_that_cannot_be_exported_is_reported_or_refused(frame: pd.DataFrame) -> None:
    named = f"{own_networks.NAME}:wayward"
    bundle = trained(frame, model=named)
    reported = export_gate(bundle, frame, Promotion())
    assert reported.passed and not reported.gated
    assert reported.reason.startswith(f"torch cannot express the network '{named}' as an ONNX graph (")
    assert reported.reason.endswith("; reported only")
    refused = export_gate(bundle, frame, Promotion(export_required=True))
    assert not refused.passed and refused.gated
    assert refused.reason.endswith("; promotion.export_required asks for it")
