"""A look into a zip or a folder of images: their names and their usual size."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from flows.errors import BadInput

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
_SIZES = ((64, 32), (128, 48))
"""Up to so many pixels a side -> side for the model; half is enough to see what a small network can learn."""
_LARGEST = 64
_LOOKED_AT = 25


def list_images(place: Path) -> list[str]:
    """Names of the images in a zip or a folder, with the folders inside it, sorted.

    Raises
    ------
    BadInput: there is no such place, it is no zip, or it holds no image.
    """
    if place.is_dir():
        names = [str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()]
    elif not place.exists():
        raise BadInput(f"{place} is not there; give the zip or folder that holds the images")
    else:
        try:
            with zipfile.ZipFile(place) as archive:
                names = [info.filename for info in archive.infolist() if not info.is_dir()]
        except zipfile.BadZipFile as error:
            raise BadInput(
                f"{place} is no zip archive, or one that was cut off; copy it again, or give a folder"
            ) from error
    found = sorted(name for name in names if name.lower().endswith(ENDINGS) and "__MACOSX" not in name)
    if not found:
        raise BadInput(f"{place} holds no image ({', '.join(ENDINGS)}); give the zip or folder that holds them")
    return found


def usual_size(place: Path) -> int:
    """Side in pixels at which the model should see these images, 32 to 64; training takes four times as long at 64.

    Raises
    ------
    BadInput: as `list_images`, or none of the images looked at can be read.
    """
    from PIL import Image, UnidentifiedImageError

    names = list_images(place)
    sides = []
    for name in names[:: max(1, len(names) // _LOOKED_AT)]:
        try:
            with Image.open(io.BytesIO(_content(place, name))) as image:
                sides.append(min(image.size))
        except (UnidentifiedImageError, OSError, zipfile.BadZipFile, zlib.error, RuntimeError):
            continue  # `ingest` holds such a row in quarantine, with the reason
    if not sides:
        raise BadInput(
            f"{place}: none of the images that were looked at can be read ({names[0]} for one); export them again"
        )
    median = float(np.median(sides))
    return next((seen for side, seen in _SIZES if median <= side), _LARGEST)


def _content(place: Path, name: str) -> bytes:
    if place.is_dir():
        return (place / name).read_bytes()
    with zipfile.ZipFile(place) as archive:
        return archive.read(name)
