"""Images that a manifest names: found in a zip or a folder, checked, and kept by the hash of their content."""

from __future__ import annotations

import hashlib
import io
import unicodedata
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from flows.errors import BadInput
from flows.settings import Settings
from flows.workspace import Workspace, write_atomically

MAX_BYTES = 64 << 20
"""A larger image file is refused unread: a camera's picture has a few megabytes."""
MAX_PIXELS = 100_000_000
"""A picture of more pixels is refused before it is decoded."""
_UTF8_NAME = 0x800
"""The flag of a zip's member that says that its name is UTF-8."""


class ImageProblem(ValueError):
    """One image is missing or cannot be used; the message says which and why."""


@dataclass
class ImageSource:
    """The images that belong to a manifest.

    Attributes
    ----------
    place: a zip file or a folder.
    """

    place: Path
    _zip: zipfile.ZipFile | None = None
    _names: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, place: Path) -> ImageSource:
        """Look into a zip or a folder.

        Raises
        ------
        BadInput: it is neither, or the zip is damaged.
        """
        if place.is_dir():
            return cls(place.resolve())
        try:
            archive = zipfile.ZipFile(place)
        except (zipfile.BadZipFile, OSError) as error:
            raise BadInput(f"{place.name}: the archive of images cannot be opened ({error}); copy it again") from error
        members = [member for member in archive.infolist() if not member.is_dir()]
        names = {_normal(_told(member)): member.filename for member in members}
        # A manifest often leaves out the folder inside the archive; that is fine where only one file can be meant.
        bases = Counter(PurePosixPath(name).name for name in names)
        short = {PurePosixPath(name).name: full for name, full in names.items() if bases[PurePosixPath(name).name] == 1}
        return cls(place, archive, {**short, **names})

    def read(self, name: str) -> bytes:
        """Bytes of one image.

        Raises
        ------
        ImageProblem: it points outside, does not exist, is too large, or its bytes are damaged.
        """
        wanted = _normal(name)
        if wanted.startswith("/") or ".." in PurePosixPath(wanted).parts or ":" in wanted.split("/", 1)[0]:
            raise ImageProblem(f"{name!r} points outside {self.place.name}")
        try:
            return self._from_zip(wanted, name) if self._zip is not None else self._from_folder(wanted, name)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise ImageProblem(f"{name!r} cannot be read from {self.place.name}") from error

    def close(self) -> None:
        """Let go of the archive."""
        if self._zip is not None:
            self._zip.close()

    def _from_zip(self, wanted: str, name: str) -> bytes:
        found = self._names.get(wanted)
        if found is None or self._zip is None:
            raise ImageProblem(f"{name!r} is not in {self.place.name}")
        size = self._zip.getinfo(found).file_size
        if size > MAX_BYTES:
            raise ImageProblem(f"{name!r} has {size:,} bytes, more than the {MAX_BYTES:,} allowed")
        return self._zip.read(found)

    def _from_folder(self, wanted: str, name: str) -> bytes:
        path = (self.place / wanted).resolve()
        if not wanted.isascii() and not path.is_file():
            path = (self.place / self._spelled().get(wanted, wanted)).resolve()
        if not path.is_relative_to(self.place):
            raise ImageProblem(f"{name!r} points outside {self.place.name}")
        if not path.is_file():
            raise ImageProblem(f"{name!r} is not in {self.place.name}")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ImageProblem(f"{name!r} has {size:,} bytes, more than the {MAX_BYTES:,} allowed")
        return path.read_bytes()

    def _spelled(self) -> dict[str, str]:
        """Names in the folder, composed, to how they are spelled there; looked up once."""
        if not self._names:
            for path in self.place.rglob("*"):
                told = path.relative_to(self.place).as_posix()
                self._names[_normal(told)] = told
        return self._names


def find_images(manifest: Path, settings: Settings) -> Path | None:
    """The zip or folder of a manifest's images: beside it with its name, else the one that the config names."""
    stem = manifest.name.split(".")[0]
    for candidate in (manifest.parent / f"{stem}.zip", manifest.parent / stem):
        if candidate.exists():
            return candidate
    if settings.data.images is None:
        return None
    configured = settings.beside_config(settings.data.images)
    return configured if configured.exists() else None


def keep_image(content: bytes, name: str, workspace: Workspace) -> str:
    """Check that an image decodes, keep it, and return the hash of its content.

    Raises
    ------
    ImageProblem: it is no image, broken, or has too many pixels.
    """
    _check(content, name)
    digest = hashlib.sha256(content).hexdigest()
    path = _path(workspace, digest)
    if not path.exists():
        write_atomically(path, content)
    return digest


def images_of(settings: Settings, workspace: Workspace) -> Callable[[str], bytes] | None:
    """The reader of the model's images; None where its rows have none."""
    return image_reader(workspace) if settings.data.image is not None else None


def image_reader(workspace: Workspace) -> Callable[[str], bytes]:
    """A function from the hash of an image's content to its bytes.

    It raises BadInput where the image is not there or is not what it was.
    """

    def read(digest: str) -> bytes:
        path = _path(workspace, digest)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadInput(f"image {digest} is not in {workspace.images}; ingest its manifest again") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise BadInput(f"{path}: the image is not what it was when it was taken in; restore it from a backup")
        return content

    return read


def _path(workspace: Workspace, digest: str) -> Path:
    return workspace.images / digest[:2] / digest


def _check(content: bytes, name: str) -> None:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Pillow warns about large pictures; the limit below is ours.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise ImageProblem(f"{name!r} has more than the {MAX_PIXELS:,} pixels allowed")
                picture.verify()
            with Image.open(io.BytesIO(content)) as picture:
                picture.load()
    except ImageProblem:
        raise
    except Image.DecompressionBombError as error:
        raise ImageProblem(f"{name!r} has more than the {MAX_PIXELS:,} pixels allowed") from error
    except Exception as error:  # a decoder fed with broken bytes raises whatever it stumbles over
        raise ImageProblem(f"{name!r} is no image, or a broken one") from error


def _told(member: zipfile.ZipInfo) -> str:
    """A member's name; where the archive does not say that it is UTF-8, it mostly is CP932, as Windows writes it."""
    if member.flag_bits & _UTF8_NAME or member.filename.isascii():
        return member.filename
    try:
        raw = member.filename.encode("cp437")
    except UnicodeEncodeError:
        return member.filename  # from a field of its own that gives the name in Unicode
    for encoding in ("utf-8", "cp932"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return member.filename


def _normal(name: str) -> str:
    # A Mac takes letters and their marks apart in the names of files, and no table does.
    return unicodedata.normalize("NFC", name.strip().replace("\\", "/").removeprefix("./"))
