"""Loss laws with a known change, for measuring how soon a change of the loss concentration is seen.

Losses are drawn from a mixture: most rows from Gamma(1, 0.15), a share of hard rows from Gamma(2, scale).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

EASY_SCALE = 0.15
"""Scale of the easy rows' losses; their shape is 1."""

HARD_SHAPE = 2.0
"""Shape of the hard rows' losses."""

SLOW_WINDOWS = 13
"""A slow change is complete after this many windows."""

PASSING_WINDOWS = 4
"""A passing change is over after this many windows."""


@dataclass(frozen=True)
class LossLaw:
    """A mixture of easy rows and hard rows.

    Attributes
    ----------
    hard_share: share of hard rows, in [0, 1].
    hard_scale: scale of their losses, above 0.
    easy_scale: scale of the other rows' losses, above 0.
    """

    hard_share: float
    hard_scale: float
    easy_scale: float = field(default=EASY_SCALE, repr=False)

    @property
    def mean(self) -> float:
        """Expected loss.

        >>> round(LossLaw(0.1, 1.5).mean, 3)
        0.435
        """
        return (1.0 - self.hard_share) * self.easy_scale + self.hard_share * HARD_SHAPE * self.hard_scale

    def towards(self, other: LossLaw, part: float) -> LossLaw:
        """The law whose share and scale lie `part` of the way to another's; 0 is this one, 1 the other.

        >>> LossLaw(0.1, 1.5).towards(LossLaw(0.3, 0.5), 0.5)
        LossLaw(hard_share=0.2, hard_scale=1.0)
        """
        return LossLaw(
            self.hard_share + part * (other.hard_share - self.hard_share),
            self.hard_scale + part * (other.hard_scale - self.hard_scale),
            self.easy_scale + part * (other.easy_scale - self.easy_scale),
        )

    def draw(self, rows: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Losses of independent rows, shape (rows,).

        >>> LossLaw(0.1, 1.5).draw(3, np.random.default_rng(0)).round(2).tolist()
        [0.91, 0.49, 4.82]
        """
        hard = rng.random(rows) < self.hard_share
        return np.where(hard, rng.gamma(HARD_SHAPE, self.hard_scale, rows), rng.gamma(1.0, self.easy_scale, rows))


BASE = LossLaw(0.10, 1.5)
"""The law before any change."""

CHANGES = {
    "none": BASE,
    "fewer but harder": LossLaw(0.05, 3.0),
    "spread out": LossLaw(0.30, 0.5),
    "more hard rows": LossLaw(0.15, 1.5),
    "slow spread": LossLaw(0.30, 0.5),
    "harder hard rows": LossLaw(0.10, 2.25),
    "all a little harder": LossLaw(0.10, 1.3 * 1.5, 1.3 * EASY_SCALE),
    "passing": LossLaw(0.30, 0.5),
}
"""Where each change leads. "fewer but harder" nearly keeps the mean; "passing" is over after four windows."""


def loss_law(change: str, *, windows_since: int, strength: float = 1.0) -> LossLaw:
    """The law of a window.

    Parameters
    ----------
    change: a key of `CHANGES`.
    windows_since: windows since the change; 0 is the first that it touches, anything below is before it.
    strength: 1 for all of the change, 0.5 for half of it (share and scale move half the way).

    Raises
    ------
    ValueError: an unknown change, a strength outside [0, 1].

    >>> loss_law("more hard rows", windows_since=-1) == BASE
    True
    >>> round(loss_law("more hard rows", windows_since=0, strength=0.5).hard_share, 3)
    0.125
    >>> [round(loss_law("slow spread", windows_since=k).hard_share, 3) for k in (0, 5, 12, 30)]
    [0.115, 0.192, 0.3, 0.3]
    >>> [loss_law("passing", windows_since=k).hard_share for k in (0, 3, 4)]
    [0.3, 0.3, 0.1]
    """
    if change not in CHANGES:
        raise ValueError(f"change is {change!r}; it must be one of {', '.join(CHANGES)}")
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength is {strength}; it must lie between 0 and 1")
    if windows_since < 0 or (change == "passing" and windows_since >= PASSING_WINDOWS):
        return BASE
    arrived = min(1.0, (windows_since + 1) / SLOW_WINDOWS) if change == "slow spread" else 1.0
    return BASE.towards(CHANGES[change], strength * arrived)


def window_losses(
    change: str, rows: int, *, windows_since: int, rng: np.random.Generator, strength: float = 1.0
) -> NDArray[np.float64]:
    """Losses of one window's rows, shape (rows,); arguments as of `loss_law`.

    >>> rng = np.random.default_rng(0)
    >>> calm = window_losses("spread out", 20_000, windows_since=-1, rng=rng)
    >>> changed = window_losses("spread out", 20_000, windows_since=0, rng=rng)
    >>> float(calm.mean().round(2)), float(changed.mean().round(2))
    (0.44, 0.41)
    """
    return loss_law(change, windows_since=windows_since, strength=strength).draw(rows, rng)
