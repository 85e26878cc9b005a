"""A config that is changed while a model is in use, and files of names that are hard to keep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from flows.early_warning import early_signs
from flows.settings import Settings
from tests.integration.weekly_model import TRAINING, Model

pytestmark = pytest.mark.slow


@pytest.fixture
def site(tmp_path: Path, line_config: Callable[..., Settings], empty_mlflow: Path) -> Model:
    settings = line_config("line-a", ingest={"settle_seconds": 0}, training=TRAINING, promotion={"resamples": 400})
    found = Model(settings, tmp_path / "plant", empty_mlflow)
    for week in (-2, -1, 0):
        found.drop(week)
    assert found.cycle(0).status == 0
    return found


def test_a_feature_that_the_config_drops_still_serves_the_model_in_use(site: Model) -> None:
    """With the column in the files and without it: the model judges by it until another takes over."""
    settings = site.context.settings
    dropped = settings.data.numeric[0]
    data = settings.data.model_copy(update={"numeric": settings.data.numeric[1:]})
    later = Model(settings.model_copy(update={"data": data}), site.context.workspace.root)
    later.drop(1)
    later.drop(2)
    done = later.cycle(2)
    assert done.status == 0
    assert [one.status for one in done.ingests] == ["accepted"] * 4
    assert {one.model_version for one in done.outcomes} == {"1"}
    rows = later.context.store.read("inspections", columns=["_id", dropped])
    assert pd.api.types.is_float_dtype(rows[dropped]) and rows[dropped].notna().mean() > 0.9
    later.drop(3, without=dropped)
    done = later.cycle(3)
    assert done.status == 0
    assert done.scored == 500
    assert {sign.window for sign in early_signs(later.context)} >= {one.window for one in done.outcomes[-1:]}


@pytest.mark.parametrize("letters", [254, 251, 241, 240])
def test_a_file_of_a_very_long_name_is_taken_in_scored_and_delivered(site: Model, letters: int) -> None:
    name = "検" * (letters // 3 - 2) + "x" * (letters % 3 + 2) + ".csv"
    assert len(name.encode()) == letters
    workspace = site.context.workspace
    for week in (1, 2):  # the second is another file of the same name
        site.drop(week, name)
        done = site.cycle(week)
        assert (done.status, done.scored) == (0, 500)
    assert [path.suffix for path in (workspace.outbox / "predictions").glob("検*")] == [".csv"] * 2
    assert len(list(workspace.archive.glob("検*.csv"))) == 2
    assert list(workspace.inbox.glob("*.csv")) == []
