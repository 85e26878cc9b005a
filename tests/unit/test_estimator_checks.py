"""scikit-learn's own checks of an estimator, on ours."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

from softad.estimator import SoftADClassifier, SoftADRegressor

# The estimators' defaults pass as well; these take a third of the time.
CHECKED = [
    SoftADClassifier(epochs=20, learning_rate=0.02, hidden=(16,)),
    SoftADClassifier(criterion="cvar", model="linear", epochs=20, learning_rate=0.03),
    SoftADRegressor(epochs=20, learning_rate=0.02, hidden=(16,)),
]
# Arrays of other libraries are checked only where SciPy was imported with SCIPY_ARRAY_API set, and skipped elsewhere.
CHECKS = [
    pytest.param(estimator, check, id=f"{estimator!r}-{getattr(check, 'func', check).__name__}-{number}")
    for original in CHECKED
    for number, (estimator, check) in enumerate(estimator_checks_generator(original, mark=None))
    if "array_api" not in getattr(check, "func", check).__name__
]


def test_all_of_scikit_learns_checks_are_there() -> None:
    assert len(CHECKS) >= 150


@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_scikit_learns_own_checks(estimator, check) -> None:
    check(estimator)
