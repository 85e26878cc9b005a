"""One training as it is known later: what it produced and on which rows, read from its run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any

from flows.model_records import RunInfo
from flows.run_files import DOCUMENT, LINEAGE, read_document
from flows.tracking import Tracker


@dataclass(frozen=True)
class Training:
    """A finished training with its registered version.

    Attributes
    ----------
    run_id, version: in the tracking server and in its registry.
    digest: SHA-256 of the model's weights and document.
    reference_digest: of the model trained on the mean loss on the same rows.
    reason: why it was trained; the same reason again finds this training.
    theta: the chosen loss level; None where plain training on the mean loss was taken.
    chosen_because: the choice in words.
    held: whether rows of an unanswered incident were kept out, so that it waits.
    incident: key of the incident that it answers, or None.
    since: when the change that it answers began; None where it answers none.
    rows: "train", "validation", "holdout", "excluded" -> how many.
    versions: table -> version that was read.
    figures: "soft", "erm" -> "validation", "holdout" -> figures; "difference" -> what soft ascent-descent changed.
    seconds: wall time.
    repeats: the run whose rows and settings were used again, or None.
    reused: whether it was found, not trained now.
    """

    run_id: str
    version: str
    digest: str
    reference_digest: str
    reason: str
    theta: float | None
    chosen_because: str
    held: bool
    incident: str | None
    since: datetime | None
    rows: dict[str, int]
    versions: dict[str, int]
    figures: dict[str, Any]
    seconds: float
    repeats: str | None = None
    reused: bool = False

    def document(self) -> str:
        """As JSON, without the version, which the registry gives."""
        content = {name: value for name, value in asdict(self).items() if name not in {"version", "reused"}}
        content["since"] = self.since.isoformat() if self.since is not None else None
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)

    def tags(self) -> dict[str, str]:
        """What the registry keeps beside the version."""
        return {
            "digest": self.digest,
            "reference_digest": self.reference_digest,
            "theta": "none" if self.theta is None else f"{self.theta:g}",
            "reason": self.reason[:500],
            "held": str(self.held).lower(),
        }


def training_of(tracker: Tracker, run: RunInfo) -> Training:
    """The training of a finished run; its model is registered now where a crash had prevented that.

    Raises
    ------
    Damaged: what the training wrote of itself cannot be read.
    """
    training = read_document(tracker, run.run_id, f"{LINEAGE}/{DOCUMENT}", _training)
    return replace(training, version=register(tracker, training))


def _training(content: dict[str, Any]) -> Training:
    since = content.pop("since")
    known = {field.name for field in fields(Training)}
    return Training(
        **{name: value for name, value in content.items() if name in known},
        since=datetime.fromisoformat(since) if since else None,
        version="",
        reused=True,
    )


def register(tracker: Tracker, training: Training) -> str:
    """Make a training's model a version, once.

    A repetition that gave the same model is the version that it repeats; another model is no version at all ("").
    """
    if training.repeats is not None:
        same = [known.version for known in tracker.versions() if known.digest == training.digest]
        return same[0] if same else ""
    return tracker.register(training.run_id, training.tags())


def latest_training(tracker: Tracker, version: str | None = None) -> Training | None:
    """The training of one version, or of the newest; None where there is none.

    Raises
    ------
    BadConfig: `version` names no registered version.
    """
    if version is None:
        known = tracker.versions()
        if not known:
            return None
        version = known[-1].version
    return training_of(tracker, tracker.run(tracker.version(version).run_id))


def kept_versions(tracker: Tracker) -> dict[str, set[int]]:
    """Table -> versions that registered models were trained on; compaction must keep them readable."""
    kept: dict[str, set[int]] = {}
    for info in tracker.versions():
        for table, number in training_of(tracker, tracker.run(info.run_id)).versions.items():
            kept.setdefault(table, set()).add(number)
    return kept
