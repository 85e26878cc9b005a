"""A backup's file: a compressed tar with a manifest of every file's SHA-256 at its end, read without trusting it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from flows.errors import BadConfig, BadInput, Unavailable

MANIFEST = "manifest.json"
_PIECE = 1 << 20
_LARGEST_MANIFEST = 200_000_000


class _Hashed(io.RawIOBase):
    """A file that is hashed while it is read."""

    def __init__(self, inner: IO[bytes]) -> None:
        self.inner, self.digest = inner, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.inner.read(size)
        self.digest.update(data)
        return data


class Writer:
    """Files into an archive; `close` adds the manifest."""

    def __init__(self, archive: tarfile.TarFile, about: dict[str, Any]) -> None:
        self._archive, self._about = archive, about
        self.files: dict[str, str] = {}

    def add(self, path: Path, name: str) -> None:
        """One file under a name; it may go on growing, and is taken as long as it is now."""
        with path.open("rb") as handle:
            hashed = _Hashed(handle)
            self._archive.addfile(self._archive.gettarinfo(arcname=name, fileobj=handle), cast("IO[bytes]", hashed))
        self.files[name] = hashed.digest.hexdigest()

    def close(self) -> None:
        """Add the manifest."""
        content = json.dumps({**self._about, "files": self.files}, indent=1).encode()
        member = tarfile.TarInfo(MANIFEST)
        member.size = len(content)
        self._archive.addfile(member, io.BytesIO(content))


@contextmanager
def writing(path: Path, about: dict[str, Any]) -> Iterator[Writer]:
    """A new archive that appears under its name when it is complete, readable by this user only.

    Raises
    ------
    BadConfig: the name ends in neither .tar.zst nor .tar.gz.
    """
    check_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        part.touch(mode=0o600)
        with _compressed(part, path.name) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
            writer = Writer(archive, about)
            yield writer
            writer.close()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def unpack(path: Path, folder: Path | None = None) -> dict[str, Any]:
    """Read an archive, put its files below `folder` where one is given, and return its manifest once all digests held.

    Raises
    ------
    BadInput: it is no backup, is cut off, was changed, or holds anything but plain files below the folder.
    Unavailable: there is no room for it.
    """
    check_name(path)
    if not path.is_file():
        raise BadConfig(f"{path}: there is no such file; name a backup that `softad backup` wrote")
    found: dict[str, str] = {}
    manifest: dict[str, Any] | None = None
    try:
        with _decompressed(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                name = _safe(path, member)
                source = archive.extractfile(member)
                if source is None:
                    raise BadInput(f"{path}: {name} has no content; make a new backup")
                if name == MANIFEST:
                    manifest = json.loads(source.read(_LARGEST_MANIFEST))
                    continue
                found[name] = _written(source, None if folder is None else folder / name, member.size)
    except (tarfile.TarError, EOFError, ValueError, gzip.BadGzipFile) as error:
        raise BadInput(f"{path}: this is no whole backup ({type(error).__name__}); take another copy of it") from error
    except OSError as error:
        if error.errno is not None:  # the disk's own errors have their sentences elsewhere
            raise
        raise BadInput(f"{path}: this is no whole backup ({str(error)[:80]}); take another copy of it") from error
    if manifest is None or not isinstance(manifest.get("files"), dict):
        raise BadInput(f"{path}: its end is missing, where every file's digest stands; take another copy of it")
    wrong = sorted(name for name in manifest["files"].keys() | found if manifest["files"].get(name) != found.get(name))
    if wrong:
        raise BadInput(f"{path}: {wrong[0]} is not as it was backed up ({len(wrong)} files in all); take another copy")
    return manifest


def _written(source: IO[bytes], target: Path | None, size: int) -> str:
    digest = hashlib.sha256()
    if target is None:
        while piece := source.read(_PIECE):
            digest.update(piece)
        return digest.hexdigest()
    target.parent.mkdir(parents=True, exist_ok=True)
    if size > shutil.disk_usage(target.parent).free:
        raise Unavailable(f"{target.parent}: there is no room for {target.name} ({size} bytes); free some space")
    with target.open("xb") as handle:
        while piece := source.read(_PIECE):
            digest.update(piece)
            handle.write(piece)
    return digest.hexdigest()


def _safe(path: Path, member: tarfile.TarInfo) -> str:
    """The member's name, if it is a plain file below the folder."""
    name = PurePosixPath(member.name)
    if not member.isfile() or name.is_absolute() or ".." in name.parts or "\\" in member.name or not name.parts:
        raise BadInput(
            f"{path}: {member.name!r} is no plain file inside a workspace, so this is no backup; nothing was done"
        )
    return str(name)


def check_name(path: Path) -> None:
    """Refuse a name that does not say how the archive is compressed.

    >>> check_name(Path("/other/disk/softad.tar.zst"))
    """
    if not path.name.endswith((".tar.zst", ".tar.gz")):
        raise BadConfig(f"{path}: a backup's name ends in .tar.zst or .tar.gz; give it one of these")


@contextmanager
def _compressed(path: Path, name: str) -> Iterator[Any]:
    if name.endswith(".gz"):
        with gzip.open(path, "wb", compresslevel=6) as stream:
            yield stream
        return
    import pyarrow as pa

    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        yield stream


@contextmanager
def _decompressed(path: Path) -> Iterator[Any]:
    if path.name.endswith(".gz"):
        with gzip.open(path, "rb") as stream:
            yield stream
        return
    import pyarrow as pa

    with pa.CompressedInputStream(str(path), "zstd") as stream:
        yield stream
