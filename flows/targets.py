"""Where a command is told to write: what cannot be a file, or a folder, is said before any work is done for it."""

from __future__ import annotations

from pathlib import Path

from flows.errors import BadConfig


def writable_file(path: Path, how: str) -> Path:
    """The path of a file that can be written, as far as what stands there already tells.

    Parameters
    ----------
    how: it is named, for the sentence, such as "with --to".

    Raises
    ------
    BadConfig: a folder stands there, or a file where one of its folders would have to be.

    >>> writable_file(Path("/nonexistent/a.csv"), "with --to").name
    'a.csv'
    >>> writable_file(Path("/"), "with --to")
    Traceback (most recent call last):
    flows.errors.BadConfig: / is a folder; name a file with --to
    """
    if path.is_dir():
        raise BadConfig(f"{path} is a folder; name a file {how}")
    _check_above(path, how)
    return path


def writable_folder(path: Path, how: str) -> Path:
    """The path of a folder that can be made or is there; see `writable_file`.

    >>> writable_folder(Path("/"), "with --workspace").is_dir()
    True
    """
    if path.exists() and not path.is_dir():
        raise BadConfig(f"{path} is a file; name a folder {how}")
    _check_above(path, how)
    return path


def _check_above(path: Path, how: str) -> None:
    above = next(folder for folder in [*path.absolute().parents, Path("/")] if folder.exists())
    if not above.is_dir():
        raise BadConfig(f"{path}: {above} is a file, and nothing can lie in it; name another place {how}")
