"""Retraining: a challenger with soft ascent-descent, and the same model without it, on the same labelled rows.

Everything that the training depends on goes into the run: the tables' versions and the very rows, the settings, the
code, the seeds. A retraining is known by its reason; the same reason again finds the finished run, also after a crash.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from flows.candidates import Candidate, choose, fit_candidates, prepare_rows
from flows.dataset import Exclusion, excluded, exclusions, labelled_rows, last_windows, remember_groups
from flows.errors import BadInput, Refused, Unavailable
from flows.evaluation import as_metrics, difference, evaluate
from flows.folds import FOLDS, group_of
from flows.images import images_of
from flows.lineage import code_version, environment, settings_as_recorded, settings_document, training_digest
from flows.run_files import DOCUMENT, LINEAGE, ROWS, RULES, SETTINGS, read_document, read_rows
from flows.trainings import (
    Training,
    kept_versions,
    latest_training,
    register,
    training_of,
)
from flows.workspace import Workspace

if TYPE_CHECKING:
    from flows.settings import Settings
    from flows.store import Store
    from flows.tracking import Tracker
    from monitoring.incidents import Incident

__all__ = ["Training", "kept_versions", "latest_training", "retrain", "training_of"]

_ROW_COLUMNS = ["_id", "_version", "_seq", "label", "window", "fold"]


@dataclass(frozen=True)
class _Plan:
    """What is to be trained: rows with their folds, and what the run must say of them."""

    settings: Settings
    frame: pd.DataFrame
    rules: list[Exclusion]
    excluded: int
    versions: dict[str, int]
    reason: str
    key: str
    held: bool
    incident: str | None
    since: datetime | None
    repeats: str | None = None

    def fold(self, name: str) -> pd.DataFrame:
        return self.frame[self.frame["fold"] == name].reset_index(drop=True)

    @property
    def rows(self) -> dict[str, int]:
        counts = self.frame["fold"].value_counts()
        return {name: int(counts.get(name, 0)) for name in FOLDS} | {"excluded": self.excluded}


def retrain(
    store: Store,
    tracker: Tracker,
    settings: Settings,
    workspace: Workspace,
    *,
    now: datetime,
    reason: str,
    incident: Incident | None = None,
    at_run: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Training:
    """Train a challenger and register it; nothing is promoted here.

    Parameters
    ----------
    now: the present, for what is recorded.
    reason: why; with the settings that a training depends on it names the training, which is done once.
    incident: the incident that asks for it. While one that names a slice is unanswered, the slice's rows since the
        change are kept out, and the challenger is `held`.
    at_run: a run whose rows, seeds and settings are taken again, as they were; the same code gives the same weights.
    progress: told in words what is being done.

    Raises
    ------
    BadInput: too few labelled rows, one class only, a part of the split without rows, or rows that do not fit; nothing
        is registered.
    BadConfig: training diverged, or `at_run` names no run.
    Refused: the rows of `at_run` are not what they were.
    Unavailable: the tracking server is away; the same call later starts over, and leaves one finished run.
    """
    key = _key_again(at_run, settings) if at_run is not None else f"{reason}|{training_digest(settings)}"
    done = _finished(tracker, key)
    if done is not None:
        return done
    if at_run is not None:
        plan = _plan_again(store, tracker, settings, at_run=at_run, reason=reason, key=key)
    else:
        plan = _plan(store, settings, reason, key, incident)
        remember_groups(store, settings, plan.frame, actor="softad", at=now)
    return _train(plan, store=store, tracker=tracker, workspace=workspace, now=now, progress=progress)


def select_rows(
    store: Store, settings: Settings, *, versions: dict[str, int], rules: list[Exclusion]
) -> tuple[pd.DataFrame, int]:
    """The labelled rows of the last `training.history` windows without the excluded ones, and how many those were.

    Raises
    ------
    BadInput: too few, a label that is no class, one class only, or a part of the split without rows.
    """
    training, task = settings.training, settings.task
    frame = labelled_rows(store, settings, versions=versions)
    windows = last_windows(frame, training.history)
    frame = frame[frame["window"].isin(windows)]
    out = excluded(frame, rules)
    frame, left_out = frame[~out].reset_index(drop=True), int(out.sum())
    also = f" ({left_out} more are kept out by incidents)" if left_out else ""
    if len(frame) < training.min_rows:
        raise BadInput(
            f"{len(frame)} labelled rows in the last {training.history} windows{also}, and training needs at least "
            f"{training.min_rows} (training.min_rows); ingest more rows or labels"
        )
    if task.kind == "classification":
        unknown = frame[~frame["label"].isin(task.classes)]
        if len(unknown):
            first = unknown.iloc[0]
            raise BadInput(
                f"the label {first['label']!r} of row {first['_id']!r} is no class of the config; "
                f"add it with `softad config add-class {first['label']}`, or correct the label"
            )
        present = frame.loc[frame["fold"] == "train", "label"].unique()
        if len(present) < 2:
            only = f"only the class {present[0]!r}" if len(present) else "no row"
            raise BadInput(
                f"there is {only} among the training rows of the last {training.history} windows{also}, and a model "
                "needs at least two classes to tell apart; ingest labels of the others"
            )
    for name in FOLDS:
        if not (frame["fold"] == name).any():
            grouped = f" by {settings.data.group!r}" if training.split.by == "group" else ""
            raise BadInput(
                f"the split {training.split.by}{grouped} leaves no row in the part {name!r}; it needs at least three "
                f"{'groups' if grouped else 'rows of different times'}: ingest more, or set training.split.by"
            )
    return frame, left_out


def _plan(store: Store, settings: Settings, reason: str, key: str, incident: Incident | None) -> _Plan:
    versions = store.versions()  # pinned: rows that come in while we train are not in it
    rules = exclusions(store, settings)
    frame, left_out = select_rows(store, settings, versions=versions, rules=rules)
    held = any(not rule.lasting for rule in rules)
    since = incident.since if incident is not None and not held else None
    return _Plan(
        settings, frame, rules, left_out, versions, reason, key, held, incident.key if incident else None, since
    )


def _plan_again(store: Store, tracker: Tracker, settings: Settings, *, at_run: str, reason: str, key: str) -> _Plan:
    run = tracker.run(at_run)
    if run.parent is not None:
        raise Refused(f"run {at_run} is a part of the training {run.parent}; repeat that one")
    if run.status != "FINISHED":
        raise Refused(f"run {at_run} did not finish ({run.status}), so there is nothing to repeat; name a finished run")
    old = training_of(tracker, run)
    for table in ("inspections", "labels"):
        if table in old.versions and not store.readable(table, old.versions[table]):
            raise Refused(
                f"run {at_run} read version {old.versions[table]} of the table {table}, and files of that version are "
                "gone (compaction removes them once no registered model needs them); restore the tables from a backup"
            )
    recorded = read_document(
        tracker, at_run, f"{LINEAGE}/{SETTINGS}", lambda content: settings_as_recorded(settings, content)
    )
    kept = read_rows(tracker, at_run)
    frame = labelled_rows(store, recorded, versions=old.versions).drop(columns=["fold", "window"])
    frame = frame.merge(kept[["_id", "_version", "window", "fold"]], on=["_id", "_version"], how="inner")
    frame = frame.sort_values(["_seq", "_id"], ignore_index=True)
    if len(frame) != len(kept) or rows_digest(frame) != rows_digest(kept):
        raise Refused(
            f"run {at_run} was trained on {len(kept)} rows, and the tables give other ones for its versions "
            f"({len(frame)} found); restore the tables from a backup"
        )
    return _Plan(
        recorded, frame, [], old.rows["excluded"], old.versions, reason, key, old.held, old.incident, old.since, at_run
    )


def _key_again(at_run: str, settings: Settings) -> str:
    """Names a repetition: other code or another torch may give another answer."""
    return f"again|{at_run}|{code_version()['code.digest']}|{environment(settings)['env.torch']}"


def rows_digest(frame: pd.DataFrame) -> str:
    """SHA-256 over ids, versions, labels and folds of the rows, in order of arrival."""
    ordered = frame.sort_values(["_seq", "_id"])[["_id", "_version", "label", "fold"]].astype("str")
    return hashlib.sha256(pd.util.hash_pandas_object(ordered, index=False).to_numpy().tobytes()).hexdigest()


def _finished(tracker: Tracker, key: str) -> Training | None:
    """The finished training of this key; what a crash or a full disk left as running is ended."""
    found = None
    for run in tracker.find(key):
        if run.status == "FINISHED":
            found = found or training_of(tracker, run)
            continue
        # A run that could still be marked as failed may have a candidate that could not.
        for part in (*tracker.children(run.run_id), run):
            if part.status == "RUNNING":
                tracker.finish(part.run_id, "KILLED")
    return found


def _train(
    plan: _Plan,
    *,
    store: Store,
    tracker: Tracker,
    workspace: Workspace,
    now: datetime,
    progress: Callable[[str], None] | None,
) -> Training:
    begun = time.perf_counter()
    tags = {"reason": plan.reason[:500], "softad.now": now.isoformat(), "held": str(plan.held).lower()}
    tags |= {"incident": plan.incident} if plan.incident else {}
    tags |= {"repeats": plan.repeats} if plan.repeats else {}
    run = tracker.start("retrain", tags=tags, key=plan.key)
    try:
        tracker.log(run, params=_params(plan))
        images = images_of(plan.settings, workspace)
        prepared = prepare_rows(plan.fold("train"), plan.fold("validation"), plan.settings, images)
        metadata = {"model": plan.settings.name, "rows": plan.rows, "rows_digest": rows_digest(plan.frame)}
        candidates, lost = fit_candidates(prepared, plan.settings, metadata=metadata, progress=progress)
        chosen, because = choose(candidates)
        if progress is not None:
            progress("measuring the challenger on held-out rows")
        erm = candidates[0]
        figures = _figures(plan, store, chosen, erm, images)
        for name in (*candidates, *lost):
            _log_candidate(tracker, run, name)
        training = Training(
            run_id=run, version="", digest=tracker.log_model(run, chosen.bundle),
            reference_digest=tracker.log_reference(run, erm.bundle), reason=plan.reason, theta=chosen.theta,
            chosen_because=because, held=plan.held, incident=plan.incident, since=plan.since, rows=plan.rows,
            versions=plan.versions, figures=figures, seconds=round(time.perf_counter() - begun, 2),
            repeats=plan.repeats,
        )  # fmt: skip
        _log_training(tracker, run, plan, training)
        tracker.finish(run)
    except BaseException:
        with contextlib.suppress(Unavailable):  # the server may be what failed; the next attempt ends the run
            tracker.finish(run, "FAILED")
        raise
    return replace(training, version=register(tracker, training))


def _params(plan: _Plan) -> dict[str, Any]:
    settings = plan.settings
    training = settings.training.model_dump(mode="json")
    params = {f"training.{name}": value for name, value in training.items() if name != "split"}
    params |= {f"split.{name}": value for name, value in training["split"].items()}
    params |= {f"rows.{name}": value for name, value in plan.rows.items()}
    params |= {f"delta.{table}": version for table, version in plan.versions.items()}
    windows = sorted(plan.frame["window"].unique())
    params |= {
        "history.rule": f"labelled rows of the last {settings.training.history} windows, the holdout excluded",
        "history.first": windows[0],
        "history.last": windows[-1],
        "history.windows": len(windows),
        "excluded.rules": json.dumps([rule.document() for rule in plan.rules], ensure_ascii=False),
        "rows.digest": rows_digest(plan.frame),
        "config.digest": settings.digest(),
    }
    return params | code_version() | environment(settings)


def _figures(
    plan: _Plan, store: Store, chosen: Candidate, erm: Candidate, images: Callable[[str], bytes] | None
) -> dict[str, Any]:
    holdout, validation = plan.fold("holdout"), plan.fold("validation")
    plain, old = evaluate(erm.bundle, holdout, plan.settings, images, scale=_reference_scale(store))
    scale = _reference_scale(store) or (float(old.mean()), float(old.std()))
    soft, new = evaluate(chosen.bundle, holdout, plan.settings, images, scale=scale)
    groups = group_of(holdout, plan.settings).to_numpy() if plan.settings.training.split.by == "group" else None
    return {
        "soft": {
            "validation": evaluate(chosen.bundle, validation, plan.settings, images, scale=scale)[0],
            "holdout": soft,
        },
        "erm": {
            "validation": evaluate(erm.bundle, validation, plan.settings, images, scale=scale)[0],
            "holdout": plain,
        },
        "difference": difference(old, new, groups, seed=plan.settings.training.seed),
        "concentration_scale": {"theta": scale[0], "sigma": scale[1]},
    }


def _reference_scale(store: Store) -> tuple[float, float] | None:
    """Mean and deviation of the champion's reference losses, so that the concentration of two models compares."""
    from flows.lives import current_life, reference_of

    life = current_life(store)
    losses = reference_of(store, life)["loss"] if life is not None else pd.Series(dtype=float)
    return (float(losses.mean()), float(losses.std(ddof=0))) if len(losses) > 1 else None


def _log_candidate(tracker: Tracker, parent: str, candidate: Any) -> None:
    child = tracker.start(candidate.name, tags={}, parent=parent)
    if not isinstance(candidate, Candidate):
        tracker.log(child, tags={"message": candidate.message})
        tracker.finish(child, "FAILED")
        return
    from softad.figures import three_figures

    result = candidate.result
    calibrated, plain = three_figures(candidate.losses), three_figures(candidate.uncalibrated, resamples=1)
    metrics: dict[str, float | None] = {
        "temperature": result.temperature, "best_epoch": result.best_epoch, "epochs": len(result.history),
        "seconds": result.seconds, "validation_balanced_accuracy": candidate.balanced_accuracy,
    }  # fmt: skip
    for name in ("mean", "tail", "stability"):
        metrics[f"validation_{name}"] = getattr(calibrated, name).value
        metrics[f"validation_uncalibrated_{name}"] = getattr(plain, name).value
    tracker.log(
        child,
        params={"theta": candidate.theta, "stopped_early": result.stopped_early, "name": candidate.name},
        metrics=metrics,
        series={
            "epoch_objective": [epoch.objective for epoch in result.history],
            "epoch_validation": [float("nan") if e.validation is None else e.validation for e in result.history],
        },
    )
    tracker.finish(child)


def _log_training(tracker: Tracker, run: str, plan: _Plan, training: Training) -> None:
    metrics: dict[str, float | None] = {"theta": training.theta, "seconds": training.seconds}
    for model, prefix in (("soft", ""), ("erm", "erm_")):
        for part, document in training.figures[model].items():
            metrics |= as_metrics(document, f"{prefix}{part}")
    metrics |= as_metrics(training.figures["difference"], "difference")
    tracker.log(run, metrics=metrics, params={"theta": training.theta, "chosen.because": training.chosen_because})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / DOCUMENT).write_text(training.document(), encoding="utf-8")
        settings = json.dumps(settings_document(plan.settings), indent=1, ensure_ascii=False)
        (folder / SETTINGS).write_text(settings, encoding="utf-8")
        rules = json.dumps([rule.document() for rule in plan.rules], indent=1, ensure_ascii=False)
        (folder / RULES).write_text(rules, encoding="utf-8")
        plan.frame[_ROW_COLUMNS].to_parquet(folder / ROWS, index=False)
        tracker.log_files(run, folder, LINEAGE)
