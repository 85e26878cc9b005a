"""configs/default.yaml is the documentation of every default; it must not part from the code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from flows.settings import Settings, load_settings

DEFAULTS = Path(__file__).parents[2] / "configs" / "default.yaml"
EXAMPLES = {
    "name": "line-a",
    "data": {"time": "inspected_at", "label": "result", "numeric": ["torque"]},
}
"""Values that have no default; all else must be what the code says without it."""


def test_values_equal_those_of_the_code() -> None:
    written = load_settings(DEFAULTS).model_dump(exclude={"source"})
    assert written == Settings(**EXAMPLES).model_dump(exclude={"source"})  # type: ignore[arg-type]


def _keys(model: type[BaseModel], document: dict[str, Any], path: str) -> list[str]:
    missing: list[str] = []
    for name, field in model.model_fields.items():
        key = f"{path}{name}"
        if name == "source":
            continue
        if name not in document:
            missing.append(key)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            missing += _keys(field.annotation, document[name], f"{key}.")
    return missing


def test_every_key_is_written() -> None:
    document = yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))
    assert _keys(Settings, document, "") == []


def test_every_key_without_a_plain_meaning_has_a_comment() -> None:
    plain = {"seed", "batch_size", "learning_rate", "weight_decay", "confidence"}
    bare = [
        line
        for line in DEFAULTS.read_text(encoding="utf-8").splitlines()
        if ":" in line and "#" not in line and line.strip().split(":")[0] not in plain and not line.endswith(":")
    ]
    assert bare == []


@pytest.mark.parametrize("folder", ["steel_plates_faults", "ai4i2020", "bsdata_ball_screw"])
def test_configs_of_real_data_load_and_name_their_expectations(folder: str) -> None:
    from flows.rules import load_suite, plan

    settings = load_settings(DEFAULTS.parent / folder / "config.yaml")
    assert settings.name == folder
    assert settings.ingest.expectations is not None
    suite = load_suite(settings.beside_config(settings.ingest.expectations))
    named = {column for rule in plan(suite) for column in rule.columns}
    assert named <= {settings.data.id, settings.data.time, *settings.data.features}
    assert settings.data.images is None or not settings.data.images.is_absolute()
