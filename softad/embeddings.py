"""Learnt vectors for categories: rows whose category columns hold codes, to rows a dense layer takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Categories = Sequence[Sequence[int]]
"""Pairs of a category column's place in a row, from 0, and how many codes it has."""

LARGEST = 2**24
"""Single precision holds every whole number up to here."""


def embedding_width(cardinality: int) -> int:
    """A usual width for so many categories: ``1.6 * cardinality ** 0.56``, from 1 to 50.

    >>> [embedding_width(cardinality) for cardinality in (2, 10, 100, 10_000)]
    [2, 6, 21, 50]
    """
    return max(1, min(50, round(1.6 * math.pow(cardinality, 0.56))))


class CategoryEmbedding(nn.Module):
    """Replace each category column by a learnt vector, behind the columns that are no categories.

    Codes are the whole numbers from 0 to one less than the column's cardinality, in a row of floating point numbers.
    Anything else, an unseen category above all, takes the column's reserved vector. That one is 0 at first, amid the
    others, which are drawn around 0: no training row moves it unless training rows hold unseen codes, too.

    Parameters
    ----------
    width: number of columns of a row.
    categories: (place of the column, cardinality) of each category column.
    widths: of the vectors: "auto" (`embedding_width`), one number for all, or one a category column.

    >>> embed = CategoryEmbedding(3, ((1, 4),), widths=2)
    >>> rows = torch.tensor([[0.5, 3.0, 7.0], [0.5, 99.0, 7.0]])
    >>> embed(rows).shape, embed(rows)[1].tolist()
    (torch.Size([2, 4]), [0.5, 7.0, 0.0, 0.0])

    Raises
    ------
    ValueError: a column is named twice or is none of the row's, or a cardinality or width is out of its range.
    """

    def __init__(
        self, width: int, categories: Categories, widths: Literal["auto"] | int | Sequence[int] = "auto"
    ) -> None:
        super().__init__()
        pairs = [tuple(pair) for pair in categories]
        if not pairs or any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"categories: {categories!r}; allowed: (column, cardinality) for one column or more")
        places = [int(place) for place, _ in pairs]
        if len(set(places)) < len(places) or min(places) < 0 or max(places) >= width:
            raise ValueError(f"categories: columns {places}; allowed: different ones in [0, {width})")
        sizes = [int(size) for _, size in pairs]
        if min(sizes) < 1 or max(sizes) > LARGEST:
            raise ValueError(f"categories: cardinalities {sizes}; allowed: 1 to {LARGEST}")
        self.widths = _widths(widths, sizes)
        self.places, self.sizes = places, sizes
        self.others = [place for place in range(width) if place not in set(places)]
        self.output_width = len(self.others) + sum(self.widths)
        tables = [nn.Embedding(size + 1, wide) for size, wide in zip(sizes, self.widths, strict=True)]
        with torch.no_grad():
            for table in tables:
                table.weight[-1].zero_()
        self.tables = nn.ModuleList(tables)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows, shape (n, width), to shape (n, output_width): other columns first, then the vectors in order."""
        parts = [rows[:, self.others]]
        for table, place, size in zip(self.tables, self.places, self.sizes, strict=True):
            codes = rows[:, place]
            known = (codes >= 0) & (codes < size) & (codes == codes.floor())
            parts.append(table(torch.where(known, codes, float(size)).long()))
        return torch.cat(parts, dim=1)

    def extra_repr(self) -> str:
        """Columns, cardinalities and widths."""
        return f"columns={self.places}, cardinalities={self.sizes}, widths={self.widths}"


def _widths(choice: Literal["auto"] | int | Sequence[int], sizes: list[int]) -> list[int]:
    if choice == "auto":
        return [embedding_width(size) for size in sizes]
    widths = [choice] * len(sizes) if isinstance(choice, int) else choice
    fits = not isinstance(widths, str) and len(widths) == len(sizes)
    if not fits or any(not isinstance(wide, int) or wide < 1 for wide in widths):
        raise ValueError(
            f'embedding: {choice!r}; allowed: "auto", a width of at least 1, or one for each of {len(sizes)} columns'
        )
    return [int(wide) for wide in widths]
