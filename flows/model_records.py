"""What is known of a run and of a registered version, and the digest by which a bundle's files are recognised."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunInfo:
    """One run as the tracking server has it.

    Attributes
    ----------
    status: RUNNING | FINISHED | FAILED | KILLED.
    parent: the run that it is part of, or None.
    """

    run_id: str
    name: str
    status: str
    started: datetime
    ended: datetime | None
    parent: str | None
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


@dataclass(frozen=True)
class VersionInfo:
    """One registered version.

    Attributes
    ----------
    digest: SHA-256 of the bundle as it was registered.
    aliases: among "champion" and "previous".
    """

    version: str
    run_id: str
    created: datetime
    digest: str
    theta: str | None
    aliases: tuple[str, ...]
    tags: dict[str, str]


def bundle_digest(folder: Path) -> str:
    """SHA-256, in hex, of a saved bundle's files; the same as `ModelBundle.digest` of what they hold."""
    from softad.bundle_files import DOCUMENT, WEIGHTS

    digest = hashlib.sha256()
    for name in (WEIGHTS, DOCUMENT):
        path = folder / name
        digest.update(path.read_bytes() if path.exists() else b"")
    return digest.hexdigest()


def requirements() -> list[str]:
    """What a process needs to load a registered model, with versions.

    >>> any(line.startswith("torch==") for line in requirements())
    True
    """
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in ("softad", "torch", "numpy", "pandas", "safetensors")]


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)


def run_info(run: Any) -> RunInfo:
    """A run as the tracking library gives it, in our own words."""
    tags = dict(run.data.tags)
    return RunInfo(
        run_id=run.info.run_id,
        name=run.info.run_name or "",
        status=run.info.status,
        started=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        ended=_moment(run.info.end_time),
        parent=tags.get("mlflow.parentRunId"),
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags=tags,
    )


def version_info(found: Any, aliases: Mapping[str, str]) -> VersionInfo:
    """A registered version as the tracking library gives it, with the aliases (name -> version) that it bears."""
    tags, version = dict(found.tags), str(found.version)
    return VersionInfo(
        version=version,
        run_id=found.run_id,
        created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        digest=tags.get("digest", ""),
        theta=tags.get("theta"),
        aliases=tuple(sorted(name for name, alias in aliases.items() if alias == version)),
        tags=tags,
    )
