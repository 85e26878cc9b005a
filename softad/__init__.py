"""Soft ascent-descent for torch: objectives on rows' losses, figures, training, and what travels with a model.

The names below are imported when they are first used, so that ``import softad`` costs nothing by itself.

>>> import torch
>>> from softad import CVaR, SoftAD
>>> criterion = SoftAD(theta=0.3, sigma=1.0, transform=CVaR(0.9), reading="aggregate")
>>> float(criterion(torch.tensor([0.0, 0.1, 2.3]))) > 0
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softad.criteria import ChiSquareDRO, Criterion, CVaR, Flooding, IFlood, Mean, SoftAD, Tilted
    from softad.estimator import SoftADClassifier, SoftADRegressor
    from softad.sharpness import SAM, SharpDRO

__all__ = [
    "SAM",
    "CVaR",
    "ChiSquareDRO",
    "Criterion",
    "Flooding",
    "IFlood",
    "Mean",
    "SharpDRO",
    "SoftAD",
    "SoftADClassifier",
    "SoftADRegressor",
    "Tilted",
]

_ELSEWHERE = {
    "SAM": "softad.sharpness",
    "SharpDRO": "softad.sharpness",
    "SoftADClassifier": "softad.estimator",
    "SoftADRegressor": "softad.estimator",
}


def __getattr__(name: str) -> object:
    if name in __all__:
        from importlib import import_module

        value = getattr(import_module(_ELSEWHERE.get(name, "softad.criteria")), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'softad' has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
