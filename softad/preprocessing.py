"""From a frame of inspection rows to the array that a network takes; learnt once, and kept with the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from softad.columns import CategoryColumn, NumericColumn, numbers_of, words_of
from softad.images import ImageSource, read_images
from softad.number_table import NumberTable

FORMAT, CODED_FORMAT = 1, 2
"""Versions of `Preprocessor.to_dict`: the second where categories are codes, which an older program cannot read."""
LARGEST_CODED = 10_000
"""Of categories that are codes, so many of a column stand for themselves; the rest are others."""


@dataclass(frozen=True)
class Preprocessor:
    """Columns and their scaling, as seen in training.

    Numbers: missing ones become the median (with a feature that says so where training rows missed some); scaled
    by quartiles, linear near the middle, logarithmic far out, so that a unit of 1e7 or an outlier does no harm.
    Words: one feature each, and one for all that were never seen; or, `coded`, one code a column for a network that
    learns a vector of each (`softad.embeddings`). Images: resized squares of three channels.

    >>> frame = pd.DataFrame({"x1": [1.0, 2.0, None, 4.0], "machine": ["M1", "M2", "M1", "M1"]})
    >>> kept = Preprocessor.fit(frame, numeric=["x1"], categorical=["machine"])
    >>> kept.transform(frame).shape, kept.input_shape
    ((4, 5), (5,))
    >>> kept.warnings(pd.DataFrame({"x1": [9.1e9], "machine": ["M99"]}))
    ['x1: 9.1e+09 is outside the training range, 1 to 4; machine: M99 was never seen in training']
    """

    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoryColumn, ...]
    image: str | None = None
    image_size: int = 32
    coded: bool = False

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        *,
        numeric: Sequence[str],
        categorical: Sequence[str],
        image: str | None = None,
        image_size: int = 32,
        coded: bool = False,
    ) -> Preprocessor:
        """Learn from training rows.

        Parameters
        ----------
        frame: at least one row; columns not named here are not looked at.
        numeric, categorical: columns by kind, in the order of their features.
        image: the column that names each row's image; `image_size` its side in pixels after resizing.
        coded: whether a category column becomes one column of codes; only for tables without images.

        >>> frame = pd.DataFrame({"x": [0.0, 2.0], "m": ["M1", "M2"]})
        >>> kept = Preprocessor.fit(frame, numeric=["x"], categorical=["m"], coded=True)
        >>> kept.transform(frame).tolist(), kept.categories
        ([[-1.0, 0.0], [1.0, 1.0]], ((1, 2),))

        Raises
        ------
        ValueError: no rows, no column, a column is missing, a numeric one holds a word, or codes with images.
        """
        if len(frame) == 0:
            raise ValueError("frame: 0 rows; allowed: at least one training row")
        if not (numeric or categorical or image):
            raise ValueError("numeric, categorical, image: all empty; allowed: at least one column")
        if not 8 <= image_size <= 512:
            raise ValueError(f"image_size: {image_size}; allowed: 8 to 512")
        if coded and image:
            raise ValueError(f"coded: True with image {image!r}; allowed: False, as for all rows with images")
        largest = LARGEST_CODED if coded else CategoryColumn.LARGEST
        return cls(
            numeric=tuple(NumericColumn.fit(numbers_of(frame, name), name) for name in numeric),
            categorical=tuple(CategoryColumn.fit(words_of(frame, name), name, largest=largest) for name in categorical),
            image=image,
            image_size=image_size,
            coded=coded,
        )

    @cached_property
    def _numbers(self) -> NumberTable:
        return NumberTable(self.numeric)

    @property
    def categories(self) -> tuple[tuple[int, int], ...]:
        """Where codes are: (column of `transform`'s answer, number of codes) of each category column; else empty.

        Words that were never seen have the code behind the last.
        """
        if not self.coded:
            return ()
        start = sum(column.width for column in self.numeric)
        return tuple((start + place, column.width - 1) for place, column in enumerate(self.categorical))

    @property
    def table_width(self) -> int:
        """How many features come from numbers and words."""
        words = len(self.categorical) if self.coded else sum(column.width for column in self.categorical)
        return sum(column.width for column in self.numeric) + words

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width, or None without images."""
        return (3, self.image_size, self.image_size) if self.image else None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row of `transform`'s answer."""
        shape = self.image_shape
        if shape is None:
            return (self.table_width,)
        return (3 * self.image_size**2 + self.table_width,) if self.table_width else shape

    def transform(self, frame: pd.DataFrame, images: ImageSource | None = None) -> npt.NDArray[np.float32]:
        """The rows' features.

        Returns shape (n, d) for tables and (n, 3, size, size) for images; where a row has both, flat rows of the
        image's values followed by the table's, (n, 3 * size * size + d).

        Parameters
        ----------
        images: from the text in the image column to the encoded image; not needed where the column holds bytes.

        Raises
        ------
        ValueError: a column is missing, a numeric one holds a word, or an image is missing or broken.
        """
        table = np.empty((len(frame), self.table_width), dtype=np.float32)
        start = 0
        if self.numeric:
            start = self._numbers.width
            table[:, :start] = self._numbers.transform(frame)
        for category in self.categorical:
            words = words_of(frame, category.name)
            encoded = category.codes(words)[:, None] if self.coded else category.transform(words)
            table[:, start : start + encoded.shape[1]] = encoded
            start += encoded.shape[1]
        if self.image is None:
            return table
        if self.image not in frame.columns:
            raise ValueError(f"{self.image}: the column is missing; here are {', '.join(map(str, frame.columns))}")
        pictures = read_images(frame[self.image].tolist(), images, self.image_size)
        if not self.table_width:
            return pictures
        return np.concatenate([pictures.reshape(len(frame), -1), table], axis=1)

    def warnings(self, frame: pd.DataFrame) -> list[str]:
        """What is unusual about each row against the training rows, shape (n,); "" where nothing is.

        Numbers are named where they lie outside the training range by more than a tenth of it.

        Raises
        ------
        ValueError: a column is missing, or a numeric one holds a word.
        """
        found: list[list[str]] = [[] for _ in range(len(frame))]
        for row, text in self._numbers.warnings(frame):
            found[row].append(text)
        for category in self.categorical:
            for row, text in category.warnings(words_of(frame, category.name)):
                found[row].append(text)
        return ["; ".join(texts) for texts in found]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as what JSON can hold."""
        return {
            "format": CODED_FORMAT if self.coded else FORMAT,
            "numeric": [asdict(column) for column in self.numeric],
            "categorical": [asdict(column) for column in self.categorical],
            "image": self.image,
            "image_size": self.image_size,
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Preprocessor:
        """What `to_dict` gave, also after a way through JSON.

        >>> kept = Preprocessor.fit(pd.DataFrame({"m": ["a", None]}), numeric=[], categorical=["m"])
        >>> Preprocessor.from_dict(kept.to_dict()) == kept
        True

        Raises
        ------
        ValueError: it is none, or made by a newer version.
        """
        if not isinstance(document, dict):
            raise ValueError(f"preprocessor: {document!r}; allowed: what to_dict gives")
        if document.get("format") not in (FORMAT, CODED_FORMAT):
            raise ValueError(f"preprocessor: format {document.get('format')!r}; allowed: {FORMAT}, {CODED_FORMAT}")
        try:
            return cls(
                numeric=tuple(NumericColumn(**column) for column in document["numeric"]),
                categorical=tuple(
                    CategoryColumn(column["name"], tuple(column["values"]), tuple(column["rest"]), column["missing"])
                    for column in document["categorical"]
                ),
                image=document["image"],
                image_size=document["image_size"],
                coded=document["format"] == CODED_FORMAT,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"preprocessor: the document does not fit ({error}); allowed: what to_dict gives"
            ) from error
