"""`SoftADClassifier` and `SoftADRegressor`: soft ascent-descent, and what it is compared with, in scikit-learn.

Both train a network of `softad.models` by `softad.training.fit` on features scaled inside, with early stopping on
a validation share of the rows, and go wherever a scikit-learn estimator goes: pipelines, grids, cross-validation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets

from softad.calibration import cross_entropies, log_probabilities
from softad.criteria import Criterion
from softad.estimator_base import SoftADEstimator
from softad.estimator_rows import Floats, Rows
from softad.row_losses import RowLoss, quantile, row_loss
from softad.training import OptimizerFactory


class SoftADClassifier(ClassifierMixin, SoftADEstimator):  # type: ignore[misc]
    """A classifier whose hard rows count, but none too much.

    Parameters
    ----------
    criterion: "softad", "mean" (ERM), "cvar", "chi_square", "tilted", "flooding", "iflood", or a criterion of
        `softad.criteria` (it is copied).
    theta: of "softad", "iflood" and "flooding" (its level): the loss level that we are content with; "auto", only
        with "softad", takes it from the losses seen.
    sigma: of "softad" and "iflood", > 0; "auto" is the mean of the losses seen, and 1 for "iflood".
    level: of "cvar", in [0, 1).
    radius: of "chi_square", >= 0.
    tilt: of "tilted", not 0.
    model: "mlp", "linear", or "package.module:factory"; see `softad.models.build_model`.
    hidden: widths of the hidden layers.
    epochs: at most so many in `fit`.
    partial_epochs: so many at most in each `partial_fit`.
    batch_size: "auto" is an eighth of the rows, at least 16 and at most 256.
    learning_rate, weight_decay, optimizer: see `softad.training.fit`.
    patience: stop after so many epochs without a lower validation loss, and take the best epoch's weights; None
        trains to the end.
    validation_fraction: share of the rows, of each class, for early stopping and calibration, never trained on; none
        is split off with fewer than 100 rows.
    calibrate: fit a temperature on the validation rows. It never sharpens where no validation row is misclassified:
        there is no finite optimum then.
    class_weight: None, "balanced", or a weight by class.
    standardize: scale the features by the training rows' means and deviations.
    random_state: fixes the training; None differs each time.
    device: "cpu", "cuda", ...
    threads: torch's thread count during the training; restored afterwards.
    warm_start: whether `fit` goes on from the present weights; classes and scaling stay as they are then.
    verbose: 1 prints a line an epoch.

    Attributes
    ----------
    classes_: the labels, sorted, shape (k,).
    n_features_in_, feature_names_in_: of the training rows; the names where a frame was given.
    n_iter_, history_: number of epochs trained since the weights were new, and a record of each.
    temperature_: what logits are divided by; 1 where nothing was calibrated.
    criterion_, theta_: the criterion in use, and its theta; None where it has none.
    scaler_, model_: the scaling (None without) and the network.

    The order of the rows is of no influence. Rows with sample weight 0 are left out, and small integer weights
    (their sum at most 1000, or 4 times the rows) are carried out as repetition; other weights go to the criterion.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> model = SoftADClassifier(criterion="cvar", level=0.5, epochs=30, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.9, model.predict_proba(X).shape
    (True, (150, 3))
    >>> round(model.figures(X, y).mean.value, 3) == round(float(model.row_losses(X, y).mean()), 3)
    True
    """

    _regression = False
    classes_: npt.NDArray[Any]
    temperature_: float

    def __init__(
        self,
        criterion: str | Criterion = "softad",
        *,
        theta: float | str = "auto",
        sigma: float | str = "auto",
        level: float = 0.9,
        radius: float = 0.5,
        tilt: float = 1.0,
        model: str = "mlp",
        hidden: Sequence[int] = (64, 64),
        epochs: int = 100,
        partial_epochs: int = 5,
        batch_size: int | str = "auto",
        learning_rate: float = 5e-3,
        weight_decay: float = 1e-4,
        optimizer: str | OptimizerFactory = "adamw",
        patience: int | None = 10,
        validation_fraction: float = 0.15,
        calibrate: bool = True,
        class_weight: str | Mapping[Any, float] | None = None,
        standardize: bool = True,
        random_state: int | np.random.RandomState | None = None,
        device: str = "cpu",
        threads: int | None = 1,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        self.criterion = criterion
        self.theta = theta
        self.sigma = sigma
        self.level = level
        self.radius = radius
        self.tilt = tilt
        self.model = model
        self.hidden = hidden
        self.epochs = epochs
        self.partial_epochs = partial_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.optimizer = optimizer
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.calibrate = calibrate
        self.class_weight = class_weight
        self.standardize = standardize
        self.random_state = random_state
        self.device = device
        self.threads = threads
        self.warm_start = warm_start
        self.verbose = verbose

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Train, anew unless `warm_start`.

        Parameters
        ----------
        X: features, shape (n, d), finite numbers.
        y: labels, shape (n,), numbers or words.
        sample_weight: shape (n,), >= 0; an integer weight is so many rows, 0 is none.

        Raises
        ------
        ValueError: a parameter is out of its range, the data are not what is described here, or they hold one class.
        TrainingDiverged: the objective or a weight is not finite.
        """
        return self._fit(X, y, sample_weight, again=self.warm_start and hasattr(self, "model_"), epochs=self.epochs)

    def partial_fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        classes: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> Self:
        """Go on from the present weights for at most `partial_epochs` epochs on new rows.

        The scaling stays that of the first call; the optimiser starts anew. A temperature is fitted again where
        there are rows enough for a validation share.

        Parameters
        ----------
        classes: all labels that may come, shape (k,), looked at in the first call only; without it they are the
            labels of the first call's rows.

        Raises
        ------
        ValueError: as in `fit`; a label that is none of `classes_`; another number of features than before.
        TrainingDiverged: the objective or a weight is not finite.
        """
        return self._fit(
            X, y, sample_weight, again=hasattr(self, "model_"), epochs=self.partial_epochs, classes=classes
        )

    def predict_proba(self, X: npt.ArrayLike) -> Floats:
        """Probabilities, shape (n, k), columns in the order of `classes_`."""
        outputs = self._outputs(X)
        return np.asarray(np.exp(log_probabilities(outputs, self.temperature_)), dtype=np.float64)

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """The most probable class of each row, shape (n,)."""
        best = self._outputs(X).argmax(axis=1)
        labels: npt.NDArray[Any] = self.classes_[best]
        return labels

    def row_losses(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
        """``-log p(label)`` of each row, shape (n,): the base loss that all figures take.

        Raises
        ------
        ValueError: rows do not fit the model, or a label is none of `classes_`.
        """
        outputs, numbers = self._with_targets(X, y)
        return cross_entropies(outputs, numbers, self.temperature_)

    def _numbers(self, y: npt.NDArray[Any], again: bool, classes: npt.ArrayLike | None) -> npt.NDArray[Any]:
        check_classification_targets(y)
        if not again:
            self.classes_ = np.unique(y if classes is None else np.asarray(classes))
            self.temperature_ = 1.0
        unknown = ~np.isin(y, self.classes_)
        if unknown.any():
            raise ValueError(
                f"y: {y[unknown].tolist()[0]!r} is not among the classes; allowed: {self.classes_.tolist()}"
            )
        return np.searchsorted(self.classes_, y).astype(np.int64)

    def _weighted(self, rows: Rows) -> Rows:
        weights = rows.weights
        if self.class_weight is not None:
            balance = self.class_weight
            if not isinstance(balance, str):
                balance = {number: balance.get(label, 1.0) for number, label in enumerate(self.classes_.tolist())}
            weights = compute_sample_weight(balance, rows.targets) * (1.0 if weights is None else weights)
            if not np.isfinite(weights).all() or weights.min() < 0.0:
                raise ValueError(f"class_weight: {self.class_weight!r}; allowed: finite, 0 or more")
            rows = Rows(rows.features, rows.targets, weights).where(weights > 0.0)
        present = np.unique(rows.targets)
        if present.size < 2:
            one = (
                f"only one class, {self.classes_.tolist()[present[0]]!r}" if present.size else "no class of weight > 0"
            )
            raise ValueError(f"y: {one}; allowed: at least two classes")
        return rows

    def _base_loss(self) -> str:
        return "cross_entropy"

    def _width(self) -> int:
        return int(self.classes_.size)

    def _take_temperature(self, temperature: float, held: Rows) -> None:
        if not self.calibrate:
            self.temperature_ = 1.0
            return
        right = self._outputs_of(held.features).argmax(axis=1) == held.targets
        self.temperature_ = max(temperature, 1.0) if right.all() else temperature


BASE_LOSSES = ("squared", "absolute", "huber", "quantile")


class SoftADRegressor(RegressorMixin, SoftADEstimator):  # type: ignore[misc]
    """A regressor whose hard rows count, but none too much.

    Targets are scaled inside by the training rows' mean and deviation, and it is the base loss of the scaled targets
    that the criterion works on: theta and sigma are in its unit, and mean the same for every target. `row_losses`
    and `figures` are in the targets' own unit.

    Parameters
    ----------
    criterion, theta, sigma, level, radius, tilt, model, hidden, epochs, partial_epochs, batch_size, learning_rate,
    weight_decay, optimizer, patience, validation_fraction, standardize, random_state, device, threads, warm_start,
    verbose: as in `SoftADClassifier`.
    base_loss: "squared", "absolute", "huber" (quadratic up to one deviation of the targets, linear beyond), or
        "quantile" (the pinball loss: the prediction is the `quantile`-quantile).
    quantile: of the base loss "quantile", in (0, 1).

    Attributes
    ----------
    target_mean_, target_scale_: of the training rows.
    n_features_in_, feature_names_in_, n_iter_, history_, criterion_, theta_, scaler_, model_: as in
    `SoftADClassifier`.

    >>> X = np.linspace(-1, 1, 200)[:, None]
    >>> model = SoftADRegressor(criterion="mean", epochs=50, random_state=0).fit(X, 100 * X[:, 0] ** 2)
    >>> model.score(X, 100 * X[:, 0] ** 2) > 0.9
    True
    """

    _regression = True
    target_mean_: float
    target_scale_: float

    def __init__(
        self,
        criterion: str | Criterion = "softad",
        *,
        base_loss: str = "squared",
        quantile: float = 0.5,
        theta: float | str = "auto",
        sigma: float | str = "auto",
        level: float = 0.9,
        radius: float = 0.5,
        tilt: float = 1.0,
        model: str = "mlp",
        hidden: Sequence[int] = (64, 64),
        epochs: int = 100,
        partial_epochs: int = 5,
        batch_size: int | str = "auto",
        learning_rate: float = 5e-3,
        weight_decay: float = 1e-4,
        optimizer: str | OptimizerFactory = "adamw",
        patience: int | None = 10,
        validation_fraction: float = 0.15,
        standardize: bool = True,
        random_state: int | np.random.RandomState | None = None,
        device: str = "cpu",
        threads: int | None = 1,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        self.criterion = criterion
        self.base_loss = base_loss
        self.quantile = quantile
        self.theta = theta
        self.sigma = sigma
        self.level = level
        self.radius = radius
        self.tilt = tilt
        self.model = model
        self.hidden = hidden
        self.epochs = epochs
        self.partial_epochs = partial_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.optimizer = optimizer
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.standardize = standardize
        self.random_state = random_state
        self.device = device
        self.threads = threads
        self.warm_start = warm_start
        self.verbose = verbose

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Train, anew unless `warm_start`.

        Parameters
        ----------
        X: features, shape (n, d), finite numbers.
        y: targets, shape (n,), finite numbers.
        sample_weight: shape (n,), >= 0; an integer weight is so many rows, 0 is none.

        Raises
        ------
        ValueError: a parameter is out of its range, or the data are not what is described here.
        TrainingDiverged: the objective or a weight is not finite.
        """
        return self._fit(X, y, sample_weight, again=self.warm_start and hasattr(self, "model_"), epochs=self.epochs)

    def partial_fit(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Go on from the present weights for at most `partial_epochs` epochs on new rows.

        The scaling of features and targets stays that of the first call; the optimiser starts anew.

        Raises
        ------
        ValueError: as in `fit`; another number of features than before.
        TrainingDiverged: the objective or a weight is not finite.
        """
        return self._fit(X, y, sample_weight, again=hasattr(self, "model_"), epochs=self.partial_epochs)

    def predict(self, X: npt.ArrayLike) -> Floats:
        """Predictions in the targets' unit, shape (n,)."""
        scaled = self._outputs(X)[:, 0]
        return self.target_mean_ + self.target_scale_ * scaled

    def row_losses(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
        """The base loss of each row, shape (n,), in the targets' unit; squared for "squared" and "huber".

        Raises
        ------
        ValueError: rows do not fit the model.
        """
        outputs, values = self._with_targets(X, y)
        scaled = (values - self.target_mean_) / self.target_scale_
        losses = row_loss(self._base_loss())(torch.from_numpy(outputs), torch.from_numpy(scaled)).numpy()
        return np.asarray(losses * self.target_scale_ ** (2 if self.base_loss in ("squared", "huber") else 1))

    def _numbers(self, y: npt.NDArray[Any], again: bool, classes: npt.ArrayLike | None) -> npt.NDArray[Any]:
        del again, classes
        return y.astype(np.float64)

    def _check_own(self) -> None:
        if self.base_loss not in BASE_LOSSES:
            raise ValueError(f"base_loss: {self.base_loss!r}; allowed: {', '.join(BASE_LOSSES)}")
        if not 0.0 < self.quantile < 1.0:
            raise ValueError(f"quantile: {self.quantile!r}; allowed: (0, 1)")

    def _base_loss(self) -> str | RowLoss:
        return quantile(self.quantile) if self.base_loss == "quantile" else self.base_loss

    def _width(self) -> int:
        return 1

    def _learn_scale(self, train: Rows) -> None:
        scaler = StandardScaler().fit(train.targets[:, None], None, train.weights)  # 1 where all targets are equal
        self.target_mean_, self.target_scale_ = float(scaler.mean_[0]), float(scaler.scale_[0])

    def _as_trained(self, targets: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return ((targets - self.target_mean_) / self.target_scale_).astype(np.float32)
