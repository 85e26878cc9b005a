"""Fixtures of the unit tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.unit.proposals import ROWS


@pytest.fixture
def measured() -> pd.DataFrame:
    """Three honest measurements; `bad` depends on them, with noise."""
    random = np.random.default_rng(7)
    frame = pd.DataFrame(random.normal(size=(ROWS, 3)), columns=["torque", "temperature", "load"]).round(3)
    bad = frame["torque"] + frame["load"] + random.normal(size=ROWS) > 2.2
    frame.attrs["bad"] = bad.tolist()
    return frame
