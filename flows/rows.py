"""Who a row is, and what it says: 64-bit hashes of cells, mixed into 128-bit hashes of rows.

The hash of a row does not depend on the order of its columns, and a missing cell adds nothing to it: a file that is
exported again with its columns in another order, or with a further column that is empty, has the same rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_HEX = np.array([f"{byte:02x}" for byte in range(256)], dtype="S2")


def text_hashes(column: pa.Array) -> np.ndarray:
    """(n,) uint64 of a text column; 0 for a null.

    >>> a, b, c = text_hashes(pa.array(["M07", "M08", None])).tolist()
    >>> a == text_hashes(pa.array(["M07"])).tolist()[0], a != b, c
    (True, True, 0)
    """
    if len(column) == 0:
        return np.zeros(0, dtype=np.uint64)
    encoded = column.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    values = encoded.dictionary.to_numpy(zero_copy_only=False).astype(object)
    # SipHash of the text, keyed and the same in every process; 0 is kept for "missing".
    hashed = np.maximum(pd.util.hash_array(values, categorize=False), np.uint64(1)) if len(values) else _NONE
    positions = pc.fill_null(encoded.indices, len(hashed)).to_numpy(zero_copy_only=False)
    hashes: np.ndarray = np.append(hashed, np.uint64(0))[positions]
    return hashes


_NONE = np.zeros(0, dtype=np.uint64)


def number_hashes(values: np.ndarray) -> np.ndarray:
    """(n,) uint64 of a float64 column, different for different numbers; 0 for NaN.

    >>> bool((number_hashes(np.array([0.0, -0.0, np.nan])) == np.array([1, 1, 0])).all())
    True
    """
    bits = (values + 0.0).view(np.uint64)  # adding zero makes -0.0 a 0.0
    return np.where(np.isnan(values), np.uint64(0), bits ^ np.uint64(1))


def time_hashes(values: np.ndarray) -> np.ndarray:
    """(n,) uint64 of a datetime64[us] column; 0 for NaT."""
    return np.where(np.isnat(values), np.uint64(0), values.astype(np.int64).view(np.uint64) ^ np.uint64(1))


def row_hashes(rows: int, columns: Iterable[tuple[str, np.ndarray]]) -> np.ndarray:
    """(n, 2) uint64: one 128-bit hash a row, out of (name, hashes of its cells).

    >>> one = row_hashes(1, [("a", np.array([5], np.uint64)), ("b", np.array([0], np.uint64))])
    >>> bool((one == row_hashes(1, [("a", np.array([5], np.uint64))])).all())
    True
    """
    total = np.zeros((2, rows), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for name, cells in columns:
            missing = cells == 0
            for half, seed in enumerate(_seeds(name)):
                total[half] += np.where(missing, np.uint64(0), _mixed(cells * seed[0] + seed[1]))
        # Sums of mixed values are mixed once more, so that close sums give distant hashes.
        return np.stack([_mixed(total[0] + np.uint64(1)), _mixed(total[1] + np.uint64(2))], axis=1)


def hex_text(hashes: np.ndarray) -> pa.Array:
    """(n, 2) uint64 -> n texts of 32 hex digits.

    >>> hex_text(np.array([[1, 255]], np.uint64)).to_pylist()
    ['000000000000000100000000000000ff']
    """
    count = len(hashes)
    digits = _HEX[hashes.astype(">u8").view(np.uint8).reshape(count, 16)]
    offsets = np.arange(0, 32 * (count + 1), 32, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(digits.tobytes()))


def occurrence_numbers(keys: np.ndarray) -> np.ndarray:
    """(n,) how many times the row's key was seen up to and with this row: 1, 2, ...

    >>> occurrence_numbers(np.array([[7, 0], [8, 0], [7, 0]], np.uint64)).tolist()
    [1, 1, 2]
    """
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    fresh = np.ones(len(keys), dtype=bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    starts = np.maximum.accumulate(np.where(fresh, np.arange(len(keys)), 0))
    numbers = np.empty(len(keys), dtype=np.int64)
    numbers[order] = np.arange(len(keys)) - starts + 1
    return numbers


def _seeds(name: str) -> list[tuple[np.uint64, np.uint64]]:
    digest = np.frombuffer(hashlib.blake2b(name.encode(), digest_size=32).digest(), dtype="<u8")
    return [(digest[0] | np.uint64(1), digest[1]), (digest[2] | np.uint64(1), digest[3])]


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finishing steps of SplitMix64: every bit of the value changes half of the result's bits."""
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return np.asarray(values ^ (values >> np.uint64(31)))
