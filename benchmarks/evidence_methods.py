"""The methods of the evidence, each with its settings, and how all of them are trained, chosen and judged alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.evidence_sets import DataSet, Rows
from softad.calibration import cross_entropies, fit_temperature, log_probabilities
from softad.criteria import ChiSquareDRO, Criterion, CVaR, Flooding, IFlood, Mean, SoftAD, Tilted
from softad.figures import cvar
from softad.models import build_model
from softad.recall import defect_scores, reject_threshold
from softad.stacked import Pilot, PilotResult, Split, train_stack
from softad.training import fit, outputs_of

THETAS = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4)
RADII = (0.05, 0.1, 0.2)
BASELINES = ("ERM", "ERM, label smoothing", "ERM, focal", "ERM, class weights")
"""What a careful user has without any of this; the last three are ERM's loss changed."""


@dataclass(frozen=True)
class Setting:
    """One way of training."""

    method: str
    label: str
    criterion: Callable[[], Criterion]
    label_smoothing: float = 0.0
    focal: float = 0.0
    balanced: bool = False
    theta: float | None = None

    def pilot(self, seed: int, rows: Rows, classes: int) -> Pilot:
        weights = None
        if self.balanced:
            counts = torch.bincount(rows.train[1], minlength=classes).clamp_min(1).double()
            weights = tuple((counts.sum() / (classes * counts)).tolist())
        return Pilot(self.criterion(), seed, 0, self.label_smoothing, self.focal, weights)


FURTHER = ("SoftAD over label smoothing", "SoftAD over focal", "SoftAD over class weights")
"""SoftAD over the losses that the baselines descend on, levels and scale from the losses: no set of images."""

TO_THE_END = ("ERM", "CVaR", "chi-square DRO", "Flooding", "SoftAD", "SoftAD, auto")
"""What is trained to the end as well: the comparison of the papers."""


def further_settings() -> list[Setting]:
    """The settings of `FURTHER`."""
    smooth, focal, weighted = FURTHER
    found = []
    for theta in ("auto", 0.1, 0.4):
        label = f"theta {theta}, sigma auto"

        def criterion(theta: Any = theta) -> Criterion:
            return SoftAD(theta, "auto")

        found += [Setting(smooth, f"{label}, {e}", criterion, label_smoothing=e) for e in (0.05, 0.1)]
        found += [Setting(focal, f"{label}, gamma {g}", criterion, focal=g) for g in (1.0, 2.0)]
        found.append(Setting(weighted, label, criterion, balanced=True))
    return found


def settings(few: bool) -> list[Setting]:
    """Every method's settings; fewer of them for a quick run, and for networks that take long."""
    thetas, some = (THETAS[1::2], THETAS[3:4]) if few else ((0.0125, 0.05, 0.1, 0.2, 0.4), (0.05, 0.2, 0.4))
    levels, radii = ((0.5,), (0.5,)) if few else ((0.3, 0.5, 0.9), (0.1, 0.5, 5.0))
    over, inside = CVaR(0.5), ChiSquareDRO(0.5)
    return [
        Setting("ERM", "", Mean),
        *[Setting("ERM, label smoothing", f"{e}", Mean, label_smoothing=e) for e in ((0.1,) if few else (0.05, 0.1))],
        *[Setting("ERM, focal", f"gamma {g}", Mean, focal=g) for g in ((1.0,) if few else (1.0, 2.0))],
        Setting("ERM, class weights", "", Mean, balanced=True),
        *[Setting("CVaR", f"level {b}", lambda b=b: CVaR(b)) for b in levels],
        *[Setting("chi-square DRO", f"radius {r}", lambda r=r: ChiSquareDRO(r)) for r in radii],
        Setting("tilted", "t 0.5", lambda: Tilted(0.5)),
        *[Setting("Flooding", f"b {t}", lambda t=t: Flooding(t)) for t in some],
        *[Setting("iFlood", f"theta {t}", lambda t=t: IFlood(t)) for t in some],
        *[Setting("SoftAD", f"theta {t}", lambda t=t: SoftAD(t), theta=t) for t in thetas],
        *[Setting("SoftAD", f"theta {t}, sigma 0.1", lambda t=t: SoftAD(t, 0.1), theta=t) for t in some],
        *[Setting("SoftAD", f"theta {t}, sigma auto", lambda t=t: SoftAD(t, "auto"), theta=t) for t in some],
        Setting("SoftAD, auto", "", lambda: SoftAD(theta="auto", sigma="auto")),
        *[Setting("CVaR + SoftAD, aggregate", f"theta {t}", lambda t=t: SoftAD(t, transform=over)) for t in some],
        *[
            Setting("CVaR + SoftAD, pointwise", f"theta {t}", lambda t=t: SoftAD(t, 1.0, 1.0, over, "pointwise"))
            for t in some[-1:]
        ],
        *[
            Setting("chi-square + SoftAD, aggregate", f"theta {t}", lambda t=t: SoftAD(t, transform=inside))
            for t in some[-1:]
        ],
        *([] if few else further_settings()),
    ]


def builder(data: DataSet) -> Callable[[int], torch.nn.Module]:
    return lambda seed: build_model(data.model, inputs=data.inputs, outputs=data.classes, hidden=data.hidden, seed=seed)


def records(
    data: DataSet, rows: Rows, seed: int, chosen: list[Setting], *, stop: bool, quick: bool
) -> Iterator[dict[str, Any]]:
    """Train every setting on one seed's rows and judge it; with early stopping or to the end."""
    split = Split(*rows.train, *rows.validation)
    epochs = max(8, data.epochs // 4) if quick else data.epochs
    for start in range(0, len(chosen), 40):
        part = chosen[start : start + 40]
        trained = train_stack(
            [setting.pilot(seed, rows, data.classes) for setting in part], [split], builder(data), epochs=epochs,
            batch_size=data.batch_size, optimizer=data.optimizer, learning_rate=data.learning_rate,
            weight_decay=data.weight_decay, patience=max(10, epochs // 5) if stop else None,
        )  # fmt: skip
        for setting, result in zip(part, trained, strict=True):
            if not result.diverged:
                yield judged(setting.method, setting.label, setting.theta, result, data, rows)
    if data.sharp:
        yield from sharp_records(data, rows, seed, epochs, stop=stop, quick=quick)


def sharp_records(
    data: DataSet, rows: Rows, seed: int, epochs: int, *, stop: bool, quick: bool
) -> Iterator[dict[str, Any]]:
    """SAM, and SharpDRO over the severities: two passes a step, so no part of the stack."""
    for method, groups in (("SAM", None), ("SharpDRO", rows.groups)):
        if method == "SharpDRO" and groups is None:
            continue
        for radius in RADII[1:2] if quick or data.model == "cnn" else RADII:
            model = builder(data)(seed)
            fit(
                model, *rows.train, validation=rows.validation, epochs=epochs, batch_size=data.batch_size,
                optimizer=data.optimizer, learning_rate=data.learning_rate, weight_decay=data.weight_decay,
                patience=max(10, epochs // 5) if stop else None, seed=seed, sharpness=radius, groups=groups,
                calibrate=False,
            )  # fmt: skip
            yield judged_model(method, f"radius {radius}", None, model, data, rows)


def judged(
    method: str, label: str, theta: float | None, result: PilotResult, data: DataSet, rows: Rows
) -> dict[str, Any]:
    record = judged_model(method, label, theta, result.model, data, rows)
    return {**record, "theta used": result.theta, "best epoch": result.best_epoch}


def judged_model(
    method: str, label: str, theta: float | None, model: torch.nn.Module, data: DataSet, rows: Rows
) -> dict[str, Any]:
    """Validation and test figures, before and after temperature scaling on the validation rows."""
    held = outputs_of(model, rows.validation[0]).numpy().astype(np.float64)
    test = outputs_of(model, rows.test[0]).numpy().astype(np.float64)
    labels = rows.test[1].numpy()
    temperature = fit_temperature(held, rows.validation[1].numpy())
    validation = cross_entropies(held, rows.validation[1].numpy(), temperature)
    return {
        "method": method, "setting": label, "theta": theta, "temperature": temperature,
        "validation": {
            "mean": float(validation.mean()), "tail": cvar(validation, 0.9),
            "error of the mean": float(validation.std() / np.sqrt(len(validation))),
        },
        "before": three(cross_entropies(test, labels)),
        "after": three(cross_entropies(test, labels, temperature)),
        **unmoved(test, labels, data, rows.hard),
    }  # fmt: skip


def three(losses: NDArray[np.float64]) -> dict[str, float]:
    return {"mean": float(losses.mean()), "tail": cvar(losses, 0.9), "sd": float(losses.std())}


def unmoved(logits: NDArray[np.float64], labels: NDArray[Any], data: DataSet, hard: Any) -> dict[str, float | None]:
    """What no rescaling moves: accuracy, balanced accuracy, error on hard rows, recall at 5 % false rejects."""
    right = logits.argmax(1) == labels
    recall = None
    if data.normal is not None and (labels != data.normal).any() and (labels == data.normal).any():
        score = defect_scores(np.exp(log_probabilities(logits)), data.normal)
        limit = reject_threshold(score[labels == data.normal], 0.05)
        recall = float((score[labels != data.normal] > limit).mean())
    return {
        "accuracy": float(right.mean()),
        "balanced accuracy": float(np.mean([right[labels == c].mean() for c in np.unique(labels)])),
        "hard error": None if hard is None else float(1.0 - right[np.asarray(hard)].mean()),
        "recall": recall,
    }


def choose(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The same rule for every method: the lowest validation tail among settings whose validation mean is within a
    standard error of the method's lowest.
    """
    best = min(found, key=lambda record: record["validation"]["mean"])
    limit = best["validation"]["mean"] + best["validation"]["error of the mean"]
    return min(
        (record for record in found if record["validation"]["mean"] <= limit),
        key=lambda record: record["validation"]["tail"],
    )


def pilot_check(data: DataSet, rows: Rows, seed: int, *, quick: bool) -> dict[str, Any] | None:
    """What the pilot recommends on the training and validation rows, and how that does on the judged ones.

    None for images: pilots take tables.
    """
    from softad.tuning import pilot

    if data.model == "cnn" or rows.raw is None:
        return None
    features, labels = rows.raw
    report = pilot(
        features, labels, budget_seconds=3.0 if quick else 40.0, task="classification", model=data.model,
        hidden=data.hidden, epochs=data.epochs, batch_size=data.batch_size, optimizer=data.optimizer,
        learning_rate=data.learning_rate, groups=rows.raw_groups, normal=data.normal, random_state=seed,
    )  # fmt: skip
    candidate = report.recommendation.candidate
    split = Split(*rows.train, *rows.validation)
    spec = candidate.spec
    pair = [Pilot(Mean(), seed), Pilot(spec.criterion, seed, 0, spec.label_smoothing, spec.focal, spec.class_weights)]
    trained = train_stack(
        pair, [split], builder(data), epochs=data.epochs, batch_size=data.batch_size, optimizer=data.optimizer,
        learning_rate=data.learning_rate, weight_decay=data.weight_decay, patience=max(10, data.epochs // 5),
    )  # fmt: skip
    erm, other = (
        judged(name, "", None, result, data, rows)
        for name, result in zip(("ERM", candidate.name), trained, strict=True)
    )
    return {
        "name": candidate.name, "reason": report.recommendation.reason,
        "mean %": _per_cent(other["after"]["mean"], erm["after"]["mean"]),
        "tail %": _per_cent(other["after"]["tail"], erm["after"]["tail"]),
        "balanced points": 100.0 * (other["balanced accuracy"] - erm["balanced accuracy"]),
    }  # fmt: skip


def _per_cent(value: float, reference: float) -> float:
    """Relative difference; 0 where both are 0, as on a set that is solved."""
    return 0.0 if value == reference else 100.0 * (value - reference) / max(reference, 1e-12)
