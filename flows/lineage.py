"""What a training run must be able to say later: which code, which libraries, which machine, which settings."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from flows.settings import Data, Settings, Task, Training, environment_overrides

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("softad", "monitoring", "flows")
_LIBRARIES = ("torch", "numpy", "pandas", "pyarrow", "deltalake", "mlflow", "scikit-learn", "safetensors")


@cache
def code_version() -> dict[str, str]:
    """The code that runs: the package's version, a digest of its sources, and the commit where it is a checkout.

    >>> sorted(code_version())[:2]
    ['code.commit', 'code.digest']
    """
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((_ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return {"code.version": _version("softad"), "code.digest": digest.hexdigest()[:16], "code.commit": _commit()}


def environment(settings: Settings) -> dict[str, str]:
    """Interpreter, machine, libraries, and what the environment changed in the configuration."""
    import torch

    found = {
        "env.python": sys.version.split()[0],
        "env.platform": platform.platform(),
        "env.cpus": str(os.cpu_count()),
        "env.instructions": torch.backends.cpu.get_cpu_capability(),  # how sums are rounded depends on them
        "env.threads": str(settings.training.threads),
        "env.device": settings.training.device,
    }
    found |= {f"env.{name}": _version(name) for name in _LIBRARIES}
    overrides = environment_overrides()
    if overrides:
        found["env.overrides"] = ", ".join(sorted(overrides))
    return found


def training_digest(settings: Settings) -> str:
    """Sixteen hex digits that change with what a training depends on: columns, task, and training settings.

    >>> one = Settings.model_validate({"name": "a", "data": {"label": "y", "numeric": ["x"], "window": {"rows": 99}}})
    >>> other = one.model_copy(update={"training": Training(seed=1)})
    >>> training_digest(one) == training_digest(one), training_digest(one) == training_digest(other)
    (True, False)
    """
    parts = {name: getattr(settings, name).model_dump(mode="json") for name in ("data", "task", "training")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def settings_document(settings: Settings) -> dict[str, Any]:
    """The whole configuration but its secrets: addresses of alert channels and of the tracking server.

    Values that training finds by itself where the config leaves them open (batch size, threads) stay open.
    """
    document = settings.model_dump(mode="json", exclude={"alerts", "tracking"})
    for name in ("batch_size", "threads"):
        if name not in settings.training.model_fields_set:
            del document["training"][name]
    return document


def settings_as_recorded(settings: Settings, document: dict[str, Any]) -> Settings:
    """`settings` with the columns, task and training settings of an earlier run."""
    return settings.model_copy(
        update={
            "data": Data.model_validate(document["data"]),
            "task": Task.model_validate(document["task"]),
            "training": Training.model_validate(document["training"]),
        }
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """The commit, with "+" where the sources differ from it; "none" where this is no checkout."""
    if not (_ROOT / ".git").exists():
        return "none"
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--", *_PACKAGES) else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"  # git itself may be missing on a plant's machine; the digest of the sources still tells


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=True, timeout=20
    ).stdout.strip()
