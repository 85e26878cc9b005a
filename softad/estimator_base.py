"""What `SoftADClassifier` and `SoftADRegressor` share: parameters, the training, and outputs of new rows."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from softad.criteria import ChiSquareDRO, Criterion, CVaR, Flooding, IFlood, Mean, SoftAD, Tilted
from softad.estimator_rows import Floats, Rows, checked_weights, held_out, in_order, repeated
from softad.figures import ThreeFigures, three_figures
from softad.models import build_model
from softad.row_losses import RowLoss
from softad.training import Epoch, OptimizerFactory, fit, outputs_of

CRITERIA = ("softad", "mean", "cvar", "chi_square", "tilted", "flooding", "iflood")


class SoftADEstimator(BaseEstimator):  # type: ignore[misc]
    """The base of both estimators; parameters and attributes are described there."""

    criterion: str | Criterion
    theta: float | str
    sigma: float | str
    level: float
    radius: float
    tilt: float
    model: str
    hidden: Sequence[int]
    epochs: int
    partial_epochs: int
    batch_size: int | str
    learning_rate: float
    weight_decay: float
    optimizer: str | OptimizerFactory
    patience: int | None
    validation_fraction: float
    standardize: bool
    random_state: int | np.random.RandomState | None
    device: str
    threads: int | None
    warm_start: bool
    verbose: int

    n_features_in_: int
    n_iter_: int
    history_: tuple[Epoch, ...]
    criterion_: Criterion
    theta_: float | None
    scaler_: StandardScaler | None
    model_: nn.Module
    _seed: int
    _trainings: int

    @abstractmethod
    def row_losses(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
        """The base loss of each row, shape (n,)."""

    def figures(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        *,
        level: float = 0.9,
        slices: Mapping[str, npt.ArrayLike] | None = None,
    ) -> ThreeFigures:
        """Mean, tail and stability of the rows' base losses; see `softad.figures.three_figures`.

        Raises
        ------
        ValueError: rows or labels do not fit the model, or an argument is out of its range.
        """
        return three_figures(self.row_losses(X, y), level=level, slices=slices)

    # --- what the two estimators fill in ---

    _regression: bool

    @abstractmethod
    def _numbers(self, y: npt.NDArray[Any], again: bool, classes: npt.ArrayLike | None) -> npt.NDArray[Any]:
        """Class numbers, or values, shape (n,); learns the classes unless `again`."""

    @abstractmethod
    def _base_loss(self) -> str | RowLoss: ...

    @abstractmethod
    def _width(self) -> int:
        """Number of outputs."""

    def _check_own(self) -> None:
        """Look at the parameters that only this estimator has."""

    def _weighted(self, rows: Rows) -> Rows:
        """With the weights of classes, and looked at: can they be learnt from?"""
        return rows

    def _learn_scale(self, train: Rows) -> None:
        """Learn the targets' scale."""

    def _as_trained(self, targets: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Targets as the base loss takes them."""
        return targets

    def _take_temperature(self, temperature: float, held: Rows) -> None:
        """Take over what was fitted on validation rows."""

    # --- training and outputs ---

    def _fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None,
        *,
        again: bool,
        epochs: int,
        classes: npt.ArrayLike | None = None,
    ) -> Self:
        criterion = self._checked_criterion()
        x, given = validate_data(self, X, y, reset=not again, dtype=np.float64, y_numeric=self._regression)
        rows = repeated(x, given, checked_weights(sample_weight, x.shape[0]))
        numbers = self._numbers(rows.targets, again, classes)
        rows = in_order(self._weighted(Rows(rows.features, numbers, rows.weights)))
        if not again:
            self._seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
            self._trainings, self.history_ = 0, ()
            self.__dict__.pop("model_", None)  # should this training fail, the old network does not fit the new classes
        seed = self._seed + self._trainings
        mask = held_out(numbers.size, self.validation_fraction, seed, None if self._regression else rows.targets)
        train, held = (rows, None) if mask is None else (rows.where(~mask), rows.where(mask))
        if not again:
            self._learn_scale(train)
            self.scaler_ = StandardScaler().fit(train.features, None, train.weights) if self.standardize else None
            model = build_model(
                self.model, inputs=(x.shape[1],), outputs=self._width(), hidden=tuple(self.hidden), seed=self._seed
            )
        else:
            model = copy.deepcopy(self.model_)  # which stays as it is, should this training diverge
            if criterion == self.criterion_:  # goes on with what it has observed
                criterion = copy.deepcopy(self.criterion_)
        result = fit(
            model,
            self._scaled(train.features),
            self._as_trained(train.targets),
            criterion=criterion,
            base_loss=self._base_loss(),
            sample_weights=train.weights,
            validation=None if held is None else (self._scaled(held.features), self._as_trained(held.targets)),
            epochs=epochs,
            batch_size=self._rows_a_batch(train.targets.size),
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            patience=None if held is None else self.patience,
            seed=seed,
            device=self.device,
            threads=self.threads,
            progress=_print if self.verbose else None,
        )
        self.model_, self.criterion_ = result.model, criterion
        self._trainings += 1
        self.history_ = (*self.history_, *result.history)
        self.n_iter_ = len(self.history_)
        self.theta_ = _theta_of(criterion)
        if held is not None:
            self._take_temperature(result.temperature, held)
        return self

    def _outputs(self, X: npt.ArrayLike) -> Floats:
        """The network's outputs, shape (n, k), in double precision: no row's answer depends on the rows beside it."""
        check_is_fitted(self, "model_")
        x = validate_data(self, X, reset=False, dtype=np.float64)
        return self._outputs_of(x)

    def _outputs_of(self, x: Floats) -> Floats:
        model = self.model_
        if torch.device(self.device).type != "mps":  # which has no double precision
            model = copy.deepcopy(model).double()
        scaled = torch.from_numpy(self._scaled(x)).to(next(model.parameters()).dtype)
        return np.asarray(outputs_of(model, scaled).numpy(), dtype=np.float64)

    def _scaled(self, x: Floats) -> Floats:
        return x if self.scaler_ is None else np.asarray(self.scaler_.transform(x), dtype=np.float64)

    def _with_targets(self, X: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, npt.NDArray[Any]]:
        """Outputs of labelled rows that are not trained on, and their class numbers or values."""
        check_is_fitted(self, "model_")
        x, given = validate_data(self, X, y, reset=False, dtype=np.float64, y_numeric=self._regression)
        return self._outputs_of(x), self._numbers(given, True, None)

    def _rows_a_batch(self, rows: int) -> int:
        # Some eight steps an epoch also for a small set, and batches from 16 rows, so that there is a tail in each.
        return min(256, max(16, rows // 8)) if self.batch_size == "auto" else cast("int", self.batch_size)

    def _checked_criterion(self) -> Criterion:
        """Look at all parameters that `fit` and the criteria do not look at themselves."""
        theta, sigma = self.theta, self.sigma
        size = self.batch_size
        for name, value, holds, allowed in (
            ("theta", theta, theta == "auto" or _is_finite(theta), '"auto" or a finite number'),
            ("sigma", sigma, sigma == "auto" or (_is_finite(sigma) and float(sigma) > 0.0), '"auto", or in (0, inf)'),
            ("level", self.level, 0.0 <= self.level < 1.0, "[0, 1)"),
            ("radius", self.radius, 0.0 <= self.radius < math.inf, "[0, inf)"),
            ("tilt", self.tilt, math.isfinite(self.tilt) and self.tilt != 0.0, "finite and not 0"),
            ("epochs", self.epochs, self.epochs >= 1, "1 or more"),
            ("partial_epochs", self.partial_epochs, self.partial_epochs >= 1, "1 or more"),
            ("batch_size", size, size == "auto" or (not isinstance(size, str) and size >= 1), '"auto", or 1 or more'),
            ("patience", self.patience, self.patience is None or self.patience >= 1, "1 or more, or None"),
            ("validation_fraction", self.validation_fraction, 0.0 <= self.validation_fraction < 1.0, "[0, 1)"),
        ):
            if not holds:
                raise ValueError(f"{name}: {value!r}; allowed: {allowed}")
        self._check_own()
        return self._new_criterion()

    def _new_criterion(self) -> Criterion:
        if isinstance(self.criterion, Criterion):
            return copy.deepcopy(self.criterion)  # what it observes is this training's
        if self.criterion in ("flooding", "iflood") and self.theta == "auto":
            raise ValueError(f"theta: 'auto' with criterion {self.criterion!r}; allowed: a finite number")
        theta: Any = self.theta
        sigma: Any = self.sigma
        match self.criterion:
            case "softad":
                return SoftAD(theta, sigma)
            case "mean":
                return Mean()
            case "cvar":
                return CVaR(self.level)
            case "chi_square":
                return ChiSquareDRO(self.radius)
            case "tilted":
                return Tilted(self.tilt)
            case "flooding":
                return Flooding(theta)
            case "iflood":
                return IFlood(theta, 1.0 if sigma == "auto" else sigma)  # of no influence on the step
        raise ValueError(f"criterion: {self.criterion!r}; allowed: {', '.join(CRITERIA)}, or a Criterion")


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)


def _theta_of(criterion: Criterion) -> float | None:
    if isinstance(criterion, Flooding):
        return criterion.level
    return float(criterion.theta) if isinstance(criterion, SoftAD | IFlood) else None


def _print(epoch: Epoch) -> None:
    held = "" if epoch.validation is None else f", validation loss {epoch.validation:.4g}"
    print(f"epoch {epoch.number} of {epoch.epochs}: objective {epoch.objective:.4g}{held}")
