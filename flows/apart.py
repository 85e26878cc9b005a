"""Several models in one workspace: what each must have of its own, so that none takes in another's files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from flows.errors import BadConfig
from flows.settings import Settings
from flows.workspace import Workspace


def check_apart(settings: Sequence[Settings], root: Path) -> set[str]:
    """The models' names, each of which has a name, an inbox and an outbox of its own.

    Two models with one inbox would each take what comes first, and lines of one make would not even notice; with one
    outbox they would write over each other's predictions.

    Parameters
    ----------
    root: of the workspace, to which the folders are relative.

    Raises
    ------
    BadConfig: two have one of them together; the sentence says which, and what to write.
    """
    names = [one.name for one in settings]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadConfig(f"two configs are named {twice[0]!r}; give each model a `name` of its own")
    places = [Workspace.at(root, settings=one) for one in settings]
    for what, folders in (
        ("inbox", [{place.inbox, place.inbox / "labels"} for place in places]),
        ("outbox", [{place.outbox} for place in places]),
    ):
        taken: dict[str, str] = {}
        for name, mine in zip(names, folders, strict=True):
            for folder in sorted(map(os.path.normpath, mine)):
                if folder in taken:
                    raise BadConfig(
                        f"{taken[folder]} and {name} have one {what}, {folder}; give each its own, such as "
                        f"`{what}: {what}/{name}` in the part `ingest` of the config of {name}"
                    )
            taken |= dict.fromkeys(map(os.path.normpath, mine), name)
    return set(names)


def own_folders(name: str, root: Path, config: Path) -> dict[str, Path]:
    """Inbox and outbox for a new model where the workspace has another one already; empty: the usual ones will do.

    The workspace's own config (`config.yaml` in it) keeps the usual folders.

    Parameters
    ----------
    name: of the new model.
    config: the file that will be written; a model that it names now is replaced, and counts for nothing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     root = Path(folder)
    ...     alone = own_folders("line-b", root, root / "b.yaml")
    ...     (root / "tables" / "line-a").mkdir(parents=True)
    ...     alone, own_folders("line-b", root, root / "b.yaml")["inbox"].as_posix()
    ({}, 'inbox/line-b')
    """
    if config.absolute() == (root / "config.yaml").absolute():
        return {}
    if not models_in(root, also_empty=True) - {name, name_in(config)}:
        return {}
    return {"inbox": Path("inbox") / name, "outbox": Path("outbox") / name}


def models_in(root: Path, *, also_empty: bool = False) -> set[str]:
    """The models of a workspace that have taken in anything; `also_empty`: or whose folders were made.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "tables" / "line-a" / "files").mkdir(parents=True)
    ...     (Path(folder) / "tables" / "line-b").mkdir()
    ...     models_in(Path(folder)), len(models_in(Path(folder), also_empty=True))
    ({'line-a'}, 2)
    """
    tables = root / "tables"
    folders = [path for path in tables.iterdir() if path.is_dir()] if tables.is_dir() else []
    return {path.name for path in folders if also_empty or any(path.iterdir())}


def name_in(config: Path) -> str | None:
    """The model that a file names; None where it is not there or is no config.

    >>> name_in(Path("nowhere.yaml")) is None
    True
    """
    try:
        document: Any = yaml.safe_load(config.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return str(document["name"]) if isinstance(document, dict) and "name" in document else None
