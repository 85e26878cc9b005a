"""The candidates of a pilot study: what they are called, what is trained, and where the search may look for more."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import optuna

from softad.criteria import AUTO_SHARE, ChiSquareDRO, Criterion, CVaR, Flooding, Mean, SoftAD, Tilted
from softad.stacked import Pilot

BASELINE = "ERM"
"""Early stopping and temperature scaling are part of every candidate, and so of this one."""

THETA_SHARES = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)
"""The grid of theta, as shares of the mean validation loss that ERM ends with."""

Kind = Literal["baseline", "reweighted", "bounded"]


@dataclass(frozen=True)
class Setting:
    """One way to train.

    Attributes
    ----------
    name: unique, and says it all.
    kind: "baseline" (ERM, label smoothing, focal loss, class weights, flooding), "reweighted" (objectives under which
        hard rows pull more than ERM lets them: CVaR, chi-square, tilted), "bounded" (SoftAD).
    spec: what `softad.stacked.train_stack` trains; its seed and split are replaced in each round.
    source: "grid" or "search".
    """

    name: str
    kind: Kind
    spec: Pilot
    source: str = "grid"

    def pilot(self, seed: int) -> Pilot:
        """A fresh copy: a criterion that learns its theta starts anew in each training."""
        return replace(self.spec, criterion=copy.deepcopy(self.spec.criterion), seed=seed, split=0)

    def fit_kwargs(self, base_loss: str = "cross_entropy") -> dict[str, Any]:
        """Arguments for `softad.training.fit` that train the same way.

        >>> Setting("focal 2", "baseline", Pilot(Mean(), focal=2.0)).fit_kwargs()
        {'criterion': Mean(), 'base_loss': ('focal', 2.0), 'label_smoothing': 0.0, 'class_weights': None}
        """
        return {
            "criterion": copy.deepcopy(self.spec.criterion),
            "base_loss": ("focal", self.spec.focal) if self.spec.focal else base_loss,
            "label_smoothing": self.spec.label_smoothing,
            "class_weights": self.spec.class_weights,
        }


def settings_grid(reference: float, counts: npt.ArrayLike | None) -> tuple[Setting, ...]:
    """The candidates that are always tried, ERM first.

    Parameters
    ----------
    reference: the mean validation loss that ERM ends with, > 0; the grid of theta is laid around it.
    counts: training rows of each class; None for regression, which has no label smoothing, focal loss or class weights.

    >>> names = [setting.name for setting in settings_grid(0.7, [90, 10])]
    >>> names[0], "SoftAD theta=auto" in names, "class weights" in names
    ('ERM', True, True)
    """
    found = [Setting(BASELINE, "baseline", Pilot(Mean()))]
    if counts is not None:
        sizes = np.maximum(np.asarray(counts, dtype=np.float64), 1.0)
        balanced = sizes.mean() / sizes
        found += [
            Setting("label smoothing 0.05", "baseline", Pilot(Mean(), label_smoothing=0.05)),
            Setting("label smoothing 0.1", "baseline", Pilot(Mean(), label_smoothing=0.1)),
            Setting("focal loss 1", "baseline", Pilot(Mean(), focal=1.0)),
            Setting("focal loss 2", "baseline", Pilot(Mean(), focal=2.0)),
        ]
        if balanced.max() > 1.25 * balanced.min():
            milder = np.sqrt(balanced)
            found += [
                Setting("class weights", "baseline", Pilot(Mean(), class_weights=tuple(balanced.tolist()))),
                Setting("class weights, root", "baseline", Pilot(Mean(), class_weights=tuple(milder.tolist()))),
            ]
    found.append(_flooding(_rounded(0.1 * reference)))
    found += [_cvar(level) for level in (0.5, 0.9)]
    found += [_chi_square(radius) for radius in (0.1, 0.5)]
    found.append(Setting("tilted 1", "reweighted", Pilot(Tilted(1.0))))
    found.append(Setting("SoftAD theta=auto", "bounded", Pilot(SoftAD(theta="auto"))))
    found.append(Setting("SoftAD theta=auto sigma=auto", "bounded", Pilot(SoftAD(theta="auto", sigma="auto"))))
    levels = [_rounded(share * reference) for share in THETA_SHARES]
    found += [_softad(theta, 1.0) for theta in levels]
    found += [_softad(theta, 0.1) for theta in levels[1::2]]
    found += [_softad(theta, _rounded(reference)) for theta in levels[1:5:2]]
    found += [_cvar_softad(theta, 0.5) for theta in levels[2:4]]
    return tuple({setting.name: setting for setting in found}.values())


def short_grid(settings: Sequence[Setting]) -> tuple[Setting, ...]:
    """The part of the grid that is tried on images, where each candidate costs much: at least one of each kind.

    >>> len(short_grid(settings_grid(0.7, [90, 10])))
    10
    """
    kept = {BASELINE, "label smoothing 0.05", "focal loss 1", "class weights", "CVaR 0.5", "chi-square 0.1",
            "SoftAD theta=auto"}  # fmt: skip
    plain = [one.name for one in settings if theta_of(one.spec.criterion) is not None]
    kept |= set(plain[1:6:2])
    return tuple(one for one in settings if one.name in kept)


class Search:
    """Optuna's multi-objective search (mean and tail loss) beyond the grid, asked for batches.

    >>> search = Search(settings_grid(0.7, None), {"ERM": (0.7, 3.0)}, reference=0.7, seed=0)
    >>> all(setting.source == "search" for setting in search.ask(3))
    True
    >>> grid = settings_grid(1e-3, None)  # almost nothing is left to learn
    >>> learnt = Search(grid, {setting.name: (1e-3, 1e-2) for setting in grid}, reference=1e-3, seed=0)
    >>> len(learnt.ask(3))
    3
    """

    KINDS = ("softad", "cvar", "chi_square", "cvar_softad")

    def __init__(
        self, grid: Sequence[Setting], figures: Mapping[str, tuple[float, float]], *, reference: float, seed: int
    ) -> None:
        self.reference = reference
        self._trials: dict[str, optuna.trial.Trial] = {}
        self._known = {setting.name for setting in grid}
        with _quiet():
            self._study = optuna.create_study(
                directions=["minimize", "minimize"], sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=5)
            )
            for setting in grid:
                told = self._told(setting)
                if told is not None and setting.name in figures:
                    self._study.add_trial(
                        optuna.trial.create_trial(
                            params=told[0], distributions=told[1], values=list(figures[setting.name])
                        )
                    )

    def ask(self, count: int) -> list[Setting]:
        """At most `count` settings that were not tried yet."""
        found: list[Setting] = []
        with _quiet():
            for _ in range(4 * count):
                if len(found) >= count:
                    break
                trial = self._study.ask()
                setting = replace(self._suggested(trial), source="search")
                if setting.name in self._known:
                    self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
                    continue
                self._known.add(setting.name)
                self._trials[setting.name] = trial
                found.append(setting)
        return found

    def tell(self, figures: Mapping[str, tuple[float, float]]) -> None:
        """Mean and tail loss of settings that were asked for."""
        with _quiet():
            for name, values in figures.items():
                if name in self._trials:
                    self._study.tell(self._trials.pop(name), list(values))

    def _spaces(self) -> dict[str, optuna.distributions.FloatDistribution]:
        space = optuna.distributions.FloatDistribution
        return {
            "theta": space(0.01 * self.reference, 2.0 * self.reference, log=True),
            "sigma": space(0.03, 3.0, log=True),
            "level": space(0.05, 0.95),
            "radius": space(0.02, 3.0, log=True),
        }

    def _suggested(self, trial: optuna.trial.Trial) -> Setting:
        spaces = self._spaces()

        def drawn(name: str) -> float:
            space = spaces[name]
            return _rounded(trial.suggest_float(name, space.low, space.high, log=space.log))

        kind = trial.suggest_categorical("objective", self.KINDS)
        if kind == "softad":
            return _softad(drawn("theta"), drawn("sigma"))
        if kind == "cvar":
            return _cvar(drawn("level"))
        if kind == "chi_square":
            return _chi_square(drawn("radius"))
        return _cvar_softad(drawn("theta"), drawn("level"))

    def _told(self, setting: Setting) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Parameters and their spaces of a setting of the grid; None where it lies outside the search."""
        criterion = setting.spec.criterion
        if setting.kind == "baseline" or isinstance(criterion, Tilted):
            return None
        params: dict[str, Any]
        if isinstance(criterion, SoftAD):
            theta = AUTO_SHARE * self.reference if criterion.theta == "auto" else criterion.theta
            params = {
                "objective": "softad",
                "theta": theta,
                "sigma": self.reference if criterion.sigma == "auto" else criterion.sigma,
            }
            if isinstance(criterion.transform, CVaR):
                params = {"objective": "cvar_softad", "theta": theta, "level": criterion.transform.level}
        elif isinstance(criterion, CVaR):
            params = {"objective": "cvar", "level": criterion.level}
        elif isinstance(criterion, ChiSquareDRO):
            params = {"objective": "chi_square", "radius": criterion.radius}
        else:
            return None
        spaces: dict[str, Any] = {"objective": optuna.distributions.CategoricalDistribution(self.KINDS)}
        within = {name: space for name, space in self._spaces().items() if name in params}
        # Where almost nothing is left to learn, "auto" comes to less than is searched for.
        if not all(space.low <= params[name] <= space.high for name, space in within.items()):
            return None
        return params, spaces | within


def theta_of(criterion: Criterion) -> float | None:
    """theta of plain SoftAD with sigma 1, which the sensitivity curve is drawn of; None for all others."""
    if isinstance(criterion, SoftAD) and criterion.transform is None and criterion.sigma == 1.0:
        return None if criterion.theta == "auto" else float(criterion.theta)
    return None


class _quiet:
    """Optuna's own logging, at warnings while inside and as it was afterwards."""

    def __enter__(self) -> None:
        self.before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)

    def __exit__(self, *_: object) -> None:
        optuna.logging.set_verbosity(self.before)


def _rounded(value: float) -> float:
    """Two significant digits, so that names stay short and say exactly what was trained."""
    return float(f"{value:.2g}")


def _flooding(level: float) -> Setting:
    return Setting(f"flooding {level:g}", "baseline", Pilot(Flooding(level)))


def _cvar(level: float) -> Setting:
    return Setting(f"CVaR {level:g}", "reweighted", Pilot(CVaR(level)))


def _chi_square(radius: float) -> Setting:
    return Setting(f"chi-square {radius:g}", "reweighted", Pilot(ChiSquareDRO(radius)))


def _softad(theta: float, sigma: float) -> Setting:
    beside = "" if sigma == 1.0 else f" sigma={sigma:g}"
    return Setting(f"SoftAD theta={theta:g}{beside}", "bounded", Pilot(SoftAD(theta=theta, sigma=sigma)))


def _cvar_softad(theta: float, level: float) -> Setting:
    criterion = SoftAD(theta=theta, transform=CVaR(level))
    return Setting(f"CVaR {level:g} + SoftAD theta={theta:g}", "bounded", Pilot(criterion))
