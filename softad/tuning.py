"""Pilot studies: which objective, and which theta, sigma or level, on one's own data within a budget in seconds.

``report = pilot(X, y, budget_seconds=60)`` tries the candidates of `softad.pilots`; ``report.recommendation`` says
which to take and why, ``report.frame()`` holds all figures, and ``report.write_html("pilot.html")`` the picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import nn

from softad.criteria import Mean
from softad.judging import Judged, judge_classes, judge_values
from softad.models import build_model
from softad.optimizers import thread_count
from softad.pilot_report import PilotReport
from softad.pilot_rows import PilotRows, Round, check_rows, cut_round, normal_class
from softad.pilot_summary import report_of
from softad.pilots import BASELINE, Search, Setting, settings_grid, short_grid
from softad.stacked import Pilot, PilotResult, train_stack
from softad.training import outputs_of

MOST_ROUNDS, LEAST_ROUNDS = 10, 3
PROBE_ROWS, PROBE_MODELS = 1_500, 25
LEAST_SAMPLE, LEAST_EPOCHS = 800, 8
GRID_SHARE = 0.65
"""The share of the budget that the grid may take; the search gets what is left."""

Progress = Callable[[float, str], None]
"""Called with the share of the budget that is used, and what was done."""


@dataclass(frozen=True)
class Training:
    """What all candidates of a study share."""

    model: str
    hidden: tuple[int, ...]
    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    optimizer: str


def pilot(
    X: pd.DataFrame | npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    budget_seconds: float = 60.0,
    task: str = "auto",
    model: str = "mlp",
    hidden: Sequence[int] = (64, 64),
    epochs: int = 60,
    patience: int = 10,
    batch_size: int | str = "auto",
    learning_rate: float = 5e-3,
    weight_decay: float = 1e-4,
    optimizer: str = "adamw",
    repeats: int | None = None,
    search: bool = True,
    groups: npt.ArrayLike | None = None,
    order: npt.ArrayLike | None = None,
    false_reject_rate: float = 0.05,
    normal: object = None,
    random_state: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
) -> PilotReport:
    """Try ERM, its strong variants, and the objectives of this package on the same rows, and recommend one.

    In each round all candidates are trained at once (`softad.stacked`) on the same three fifths of the rows from
    the same initial weights, stopped early and calibrated on a fifth, and judged on the last fifth; the rounds rotate
    and reshuffle the fifths. First comes a fixed grid, then, in the time left, Optuna's search.

    Parameters
    ----------
    X: a frame (columns of numbers, all others are categories; missing values allowed), numbers of shape (n, d), or
        images of shape (n, channels, height, width), which ask for model="cnn".
    y: labels, or values of regression, shape (n,).
    budget_seconds: of wall time, > 0. If it is too short for `LEAST_ROUNDS` rounds of all rows, a sample of the rows
        is used, and then fewer epochs; the report's `notes` say so.
    task: "auto", "classification" or "regression".
    model, hidden: "linear", "mlp" or "package.module:factory" (`softad.models.build_model`).
    epochs, patience, learning_rate, weight_decay, optimizer: as for `softad.training.fit`.
    batch_size: "auto" is an eighth of the training rows, at least 16 and at most 256.
    repeats: how many rounds, at least 1; None takes as many as the budget allows, from 3 to 10.
    search: whether Optuna may go on from the grid in the time left.
    groups: one a row, shape (n,), such as the lot or machine; rows of a group stay in one part.
    order: when each row was, as numbers, shape (n,); rows are then judged by models of earlier rows only.
    false_reject_rate: share of normal rows that may be rejected where recall of the other classes is judged.
    normal: the label of normal rows; None is the most frequent, whose recall figures decide only if it is of more than
        half of the rows.
    random_state: fixes folds, initial weights and search; how many rounds fit into the budget depends on the machine.
    threads: torch's thread count meanwhile, restored afterwards; steps this small gain little from a second one, and
        lose much where other programs use it too.
    progress: called with (share of the budget used, what was done).

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(200, 3))
    >>> report = pilot(x, x[:, 0] > 0, budget_seconds=1.5, model="linear", epochs=8, repeats=1)
    >>> report.candidates[0].name, report.recommendation.name
    ('ERM', 'ERM')

    Raises
    ------
    ValueError: names the argument, its value and what is allowed.
    """
    started = time.monotonic()
    for name, value, holds, allowed in (
        ("budget_seconds", budget_seconds, 0.0 < budget_seconds < float("inf"), "(0, inf)"),
        ("epochs", epochs, epochs >= 1, "1 or more"),
        ("patience", patience, patience >= 1, "1 or more"),
        ("batch_size", batch_size, batch_size == "auto" or (isinstance(batch_size, int) and batch_size >= 1),
         '"auto", or 1 or more'),
        ("learning_rate", learning_rate, 0.0 < learning_rate < float("inf"), "(0, inf)"),
        ("optimizer", optimizer, optimizer in ("adamw", "sgd"), '"adamw" or "sgd"'),
        ("repeats", repeats, repeats is None or repeats >= 1, "1 or more, or None"),
        ("false_reject_rate", false_reject_rate, 0.0 <= false_reject_rate < 1.0, "[0, 1)"),
        ("threads", threads, threads >= 1, "1 or more"),
        ("random_state", random_state, 0 <= random_state < 2**31, "0 to 2^31 - 1"),
    ):  # fmt: skip
        if not holds:
            raise ValueError(f"{name}: {value!r}; allowed: {allowed}")
    rows = check_rows(X, y, task=task, groups=groups, order=order)
    _check_model(model, hidden, pictures=rows.pictures is not None)
    good = normal_class(rows, normal)
    size = batch_size if isinstance(batch_size, int) else 0
    shared = Training(model, tuple(hidden), epochs, patience, size, learning_rate, weight_decay, optimizer)
    with thread_count(threads):
        study = _Study(rows, shared, budget_seconds, started, random_state, good, false_reject_rate, progress)
        study.fit_to_budget(repeats or LEAST_ROUNDS)
        study.grid(repeats)
        if search:
            study.search()
    return report_of(
        study.rows,
        study.settings,
        study.judged,
        study.thetas,
        [cut.rows for cut in study.rounds],
        training=vars(study.shared),
        notes=study.notes,
        seconds=time.monotonic() - started,
        budget=budget_seconds,
        normal=rows.classes[good] if rows.classes else None,
        constants=[cut.constant_losses(len(rows.classes)) for cut in study.rounds],
        finished=study.finished,
        # Where no class is the normal one, recall at a false-reject rate is shown, and decides nothing.
        ask_recall=normal is not None
        or (bool(rows.classes) and 2 * int((rows.target == good).sum()) > len(rows.frame)),
    )


class _Study:
    """What has been tried so far."""

    def __init__(
        self,
        rows: PilotRows,
        shared: Training,
        budget: float,
        started: float,
        random_state: int,
        normal: int,
        rate: float,
        progress: Progress | None,
    ) -> None:
        self.rows, self.shared, self.budget, self.started = rows, shared, budget, started
        self.random_state, self.normal, self.rate, self.progress = random_state, normal, rate, progress
        self.deadline = started + budget
        self.notes: list[str] = []
        self.rounds: list[Round] = []
        self.settings: list[Setting] = []
        self.judged: list[dict[str, Judged]] = []
        """One a round: candidate to how it was judged; without those that diverged."""
        self.thetas: list[dict[str, float]] = []
        self.unfinished = 0
        self.reference = 1.0
        self.round_seconds = 0.0

    def fit_to_budget(self, rounds: int) -> None:
        """Sample rows, then cut epochs, where `rounds` rounds of the grid would not fit."""
        sample = self.rows.sample(PROBE_ROWS, self.random_state)
        cut = cut_round(sample, 0, self.random_state)
        wanted = int(0.6 * len(self.rows.frame))
        size = self.shared.batch_size or int(np.clip(wanted // 8, 16, 256))
        self.shared = replace(self.shared, batch_size=size)
        ticks: list[float] = []
        probes = PROBE_MODELS if self.rows.pictures is None else PROBE_MODELS // 2
        train_stack(
            [Pilot(Mean(), seed=0)] * probes, [cut.split], self._builder(cut), deadline=self.deadline,
            progress=lambda *_: ticks.append(time.monotonic()), **self._arguments(epochs=2),
        )  # fmt: skip
        if len(ticks) < 2:
            self._take_sample(LEAST_SAMPLE)  # not even the probe fitted
            return
        # Criteria of several kinds cost more than the mean, and ERM is trained once more for the reference, but early
        # stopping ends most trainings before the last epoch. What is left over is for a machine that others use too:
        # a study that ends before its third round says nothing.
        by_row = (ticks[1] - ticks[0]) / cut.split.features.shape[0]
        left = max(0.65 * self.budget - (time.monotonic() - self.started), 0.1)
        most = left / (rounds * by_row * 0.8 * self.shared.epochs)
        if most < wanted:
            self._take_sample(max(int(most / 0.6), LEAST_SAMPLE))
            share = most / (0.6 * len(self.rows.frame))
            epochs = max(int(share * self.shared.epochs), min(LEAST_EPOCHS, self.shared.epochs))
            if epochs < self.shared.epochs:
                self.notes.append(f"{epochs} epochs instead of {self.shared.epochs}: the budget is too short for all.")
                self.shared = replace(self.shared, epochs=epochs)

    def _take_sample(self, rows: int) -> None:
        total, self.rows = len(self.rows.frame), self.rows.sample(rows, self.random_state)
        if len(self.rows.frame) < total:
            self.notes.append(
                f"A sample of {len(self.rows.frame)} of the {total} rows: the budget is too short for all."
            )

    def grid(self, repeats: int | None) -> None:
        """Rounds of the grid, as many as its share of the budget allows."""
        first = self._cut(0)
        self.reference = self._reference(
            [first] if len(self.rows.frame) > 5_000 else [first, self._cut(1), self._cut(2)]
        )
        counts = np.bincount(self.rows.target, minlength=len(self.rows.classes)) if self.rows.classes else None
        grid = settings_grid(self.reference, counts)
        self.settings = list(grid if self.rows.pictures is None else short_grid(grid))
        most = repeats or MOST_ROUNDS
        for number in range(most):
            begun = time.monotonic()
            least = repeats or LEAST_ROUNDS
            share = 1.0 if number < least else GRID_SHARE
            # Begun only if it can be finished: a round that the deadline cuts short would be of no use.
            if number and begun + 0.9 * self.round_seconds > self.started + share * self.budget:
                break
            cut = first if number == 0 else self._cut(number)
            results = self._train(self.settings, cut)
            if number and self._was_cut(results):
                break
            if number == 0 and self._was_cut(results):
                self.notes.append("The budget ended within the first round: nothing is trained to its end.")
            self.rounds.append(cut)
            self.judged.append(self._judge(self.settings, results, cut))
            self.thetas.append(_thetas(self.settings, results))
            self.unfinished += self._is_unfinished(results[0])
            took = time.monotonic() - begun
            self.round_seconds = took if number == 0 else max(took, 0.5 * (took + self.round_seconds))
            self._tell(f"round {number + 1}: {len(self.settings)} candidates")
        if BASELINE not in self.judged[0]:
            raise ValueError(f"learning_rate: {self.shared.learning_rate!r}, ERM diverged; allowed: a lower one")
        if not self.finished:
            self.notes.append(
                f"ERM was still improving after {self.shared.epochs} epochs in {self.unfinished} of {len(self.rounds)} "
                "rounds: more epochs, or a higher learning rate, come first."
            )
        if len(self.rounds) < min(LEAST_ROUNDS, most):
            self.notes.append(
                f"Only {len(self.rounds)} rounds fitted into the budget; nothing but ERM can be recommended."
            )

    def _is_unfinished(self, result: PilotResult) -> bool:
        """Whether the last epochs, as many as the patience, still lowered the validation loss by a hundredth."""
        before = result.validation[: -self.shared.patience]
        return not before or min(result.validation) < 0.99 * min(before)

    def _reference(self, cuts: Sequence[Round]) -> float:
        """The mean validation loss that ERM ends with; of several rounds where rows are few and one says little."""
        found = []
        for cut in cuts:
            (alone,) = self._train([Setting(BASELINE, "baseline", Pilot(Mean()))], cut)
            best = min(alone.validation, default=float("nan"))
            if np.isfinite(best) and best > 0.0:
                found.append(best)
        return float(np.mean(found)) if found else 1.0

    @property
    def finished(self) -> bool:
        """Whether early stopping ended ERM in most rounds."""
        return 2 * self.unfinished <= len(self.rounds)

    def search(self) -> None:
        """Batches of Optuna's trials in all rounds, in the time left."""
        if len(self.rounds) < LEAST_ROUNDS:
            return
        search = Search(self.settings, self._figures(), reference=self.reference, seed=self.random_state)
        by_setting = self.round_seconds * len(self.rounds) / len(self.settings)
        for batch in range(2):
            left = self.deadline - time.monotonic()
            # A small stack costs more a model than a large one.
            count = int(0.6 * left / by_setting / (2 - batch))
            if count < 3:
                break
            settings = search.ask(min(count, 12))
            begun = time.monotonic()
            found: list[tuple[dict[str, Judged], dict[str, float]]] = []
            for cut in self.rounds:
                results = self._train(settings, cut)
                if self._was_cut(results):
                    self._tell("the search ended with the budget")
                    return
                found.append((self._judge(settings, results, cut), _thetas(settings, results)))
            by_setting = (time.monotonic() - begun) / len(settings)
            for number, (judged, thetas) in enumerate(found):
                self.judged[number] |= judged
                self.thetas[number] |= thetas
            self.settings += settings
            search.tell({n: v for n, v in self._figures().items() if n in {s.name for s in settings}})
            self._tell(f"search: {len(settings)} candidates more")

    def _figures(self) -> dict[str, tuple[float, float]]:
        """Mean and tail loss of the candidates that diverged in no round."""
        return {
            setting.name: (
                float(np.mean([judged[setting.name].after["mean"].mean() for judged in self.judged])),
                float(np.mean([judged[setting.name].after["tail"].mean() for judged in self.judged])),
            )
            for setting in self.settings
            if all(setting.name in judged for judged in self.judged)
        }

    def _cut(self, number: int) -> Round:
        return cut_round(self.rows, number, self.random_state)

    def _builder(self, cut: Round) -> Callable[[int], nn.Module]:
        inputs, outputs = tuple(cut.split.features.shape[1:]), max(len(self.rows.classes), 1)
        shared = self.shared
        return lambda seed: build_model(shared.model, inputs=inputs, outputs=outputs, hidden=shared.hidden, seed=seed)

    def _arguments(self, epochs: int | None = None) -> dict[str, Any]:
        shared = self.shared
        return {
            "base_loss": "cross_entropy" if self.rows.classes else "squared",
            "epochs": epochs or shared.epochs,
            "patience": shared.patience,
            "batch_size": shared.batch_size,
            "learning_rate": shared.learning_rate,
            "weight_decay": shared.weight_decay,
            "optimizer": shared.optimizer,
        }

    def _train(self, settings: Sequence[Setting], cut: Round) -> list[PilotResult]:
        seed = 1_000 * self.random_state + cut.number
        pilots = [setting.pilot(seed) for setting in settings]
        return train_stack(pilots, [cut.split], self._builder(cut), deadline=self.deadline, **self._arguments())

    def _was_cut(self, results: Sequence[PilotResult]) -> bool:
        """Whether the deadline ended a training that would have gone on."""
        return any(
            len(one.validation) < self.shared.epochs and len(one.validation) - one.best_epoch < self.shared.patience
            for one in results
        )

    def _judge(self, settings: Sequence[Setting], results: Sequence[PilotResult], cut: Round) -> dict[str, Judged]:
        found = {}
        for setting, result in zip(settings, results, strict=True):
            if result.diverged:
                continue
            outputs = outputs_of(result.model, cut.features).numpy().astype(np.float64)
            if not self.rows.classes:
                found[setting.name] = judge_values(outputs.ravel(), cut.target, cut.unit)
                continue
            held = outputs_of(result.model, cut.split.validation_features).numpy().astype(np.float64)
            found[setting.name] = judge_classes(
                outputs, cut.target, held, cut.split.validation_targets.numpy(), normal=self.normal, rate=self.rate
            )
        return found

    def _tell(self, what: str) -> None:
        if self.progress is not None:
            self.progress(min((time.monotonic() - self.started) / self.budget, 1.0), what)


def _thetas(settings: Sequence[Setting], results: Sequence[PilotResult]) -> dict[str, float]:
    return {
        setting.name: result.theta
        for setting, result in zip(settings, results, strict=True)
        if result.theta is not None and not result.diverged
    }


def _check_model(model: str, hidden: Sequence[int], *, pictures: bool) -> None:
    if (model == "cnn") != pictures and ":" not in model:
        allowed = '"cnn"' if pictures else '"linear", "mlp"'
        raise ValueError(f'model: {model!r}; allowed: {allowed}, or "package.module:factory"')
    if any(size < 1 for size in hidden):
        raise ValueError(f"hidden: {tuple(hidden)}; allowed: widths of at least 1")
    if ":" not in model and model not in ("linear", "mlp", "cnn"):
        raise ValueError(f'model: {model!r}; allowed: "linear", "mlp", or "package.module:factory"')
