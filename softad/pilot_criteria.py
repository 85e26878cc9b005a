"""Objectives by the names that a pilot study gives them, so that a config can ask for what it recommends."""

from __future__ import annotations

import re
from collections.abc import Callable

from softad.criteria import ChiSquareDRO, Criterion, CVaR, Flooding, SoftAD, Tilted

_NUMBER = r"(\d+(?:\.\d+)?(?:e-?\d+)?)"
_BOTH = re.compile(rf"CVaR {_NUMBER} \+ SoftAD theta={_NUMBER}")
_ONE = re.compile(rf"(CVaR|chi-square|tilted|flooding) {_NUMBER}")
_KINDS: dict[str, Callable[[float], Criterion]] = {
    "CVaR": CVaR,
    "chi-square": ChiSquareDRO,
    "tilted": Tilted,
    "flooding": Flooding,
}


def criterion_named(name: str) -> Criterion:
    """The criterion of a pilot study's candidate.

    >>> criterion_named("CVaR 0.9"), criterion_named("chi-square 0.5")
    (CVaR(level=0.9), ChiSquareDRO(radius=0.5))
    >>> criterion_named("CVaR 0.5 + SoftAD theta=0.08").theta
    0.08

    Raises
    ------
    ValueError: the name is of none, or its number is out of range.
    """
    both, one = _BOTH.fullmatch(name), _ONE.fullmatch(name)
    if both:
        return SoftAD(theta=float(both[2]), transform=CVaR(float(both[1])))
    if one:
        return _KINDS[one[1]](float(one[2]))
    raise ValueError(
        f"name: {name!r}; allowed: such as 'CVaR 0.9', 'chi-square 0.5', 'tilted 1', 'flooding 0.05' or "
        "'CVaR 0.5 + SoftAD theta=0.1'"
    )
