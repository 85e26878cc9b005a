"""Pictures of parts: from encoded bytes to arrays."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

ImageSource = Callable[[str], bytes]
"""From the text in the image column to the encoded image."""


def decode_image(name: str, content: bytes, size: int) -> npt.NDArray[np.float32]:
    """An encoded image as colour channels, shape (3, size, size), values about -2 to 2.

    The whole image is kept and squeezed to a square; 16-bit grey images keep their range; transparency is dropped.

    >>> from PIL import Image
    >>> buffer = io.BytesIO()
    >>> Image.new("L", (40, 20), 255).save(buffer, "PNG")
    >>> picture = decode_image("part.png", buffer.getvalue(), 8)
    >>> picture.shape, float(picture.max())
    ((3, 8, 8), 2.0)

    Raises
    ------
    ValueError: the bytes are no image that can be read; names the image.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content)) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
                grey = np.clip(np.asarray(picture, dtype=np.float64) / 257.0, 0.0, 255.0)
                picture = Image.fromarray(grey.astype(np.uint8))
            small = picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
    except Exception as error:  # Pillow's decoders raise many kinds, from OSError to struct.error
        raise ValueError(
            f"the image {name!r} cannot be read ({type(error).__name__}: {error}); allowed: PNG, JPEG, BMP, TIFF and "
            "what else Pillow reads"
        ) from error
    channels = np.asarray(small, dtype=np.float32).transpose(2, 0, 1) / np.float32(255.0)
    return (channels - np.float32(0.5)) / np.float32(0.25)


def read_images(names: list[object], source: ImageSource | None, size: int) -> npt.NDArray[np.float32]:
    """Images by name, shape (n, 3, size, size); a cell that holds bytes is an image already.

    >>> read_images([None], None, 8)
    Traceback (most recent call last):
    ...
    ValueError: row 0 names no image (None); allowed: the name of an image, or its bytes

    Raises
    ------
    ValueError: a name is missing, a file is missing, or an image cannot be read; names the row and the image.
    """
    pictures = np.empty((len(names), 3, size, size), dtype=np.float32)
    for row, name in enumerate(names):
        if isinstance(name, bytes):
            pictures[row] = decode_image(f"row {row}", name, size)
            continue
        if not isinstance(name, str) or not name:
            raise ValueError(f"row {row} names no image ({name!r}); allowed: the name of an image, or its bytes")
        if source is None:
            raise ValueError(f"images: None, and row {row} names {name!r}; allowed: a function from names to bytes")
        try:
            content = source(name)
        except (OSError, KeyError) as error:
            raise ValueError(
                f"row {row}: the image {name!r} is not there ({error}); add it, or mend the name"
            ) from error
        pictures[row] = decode_image(name, content, size)
    return pictures
