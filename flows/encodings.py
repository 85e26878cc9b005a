"""Which Japanese encoding a text that is no UTF-8 is in, told by what it says when it is read as such.

Nearly any bytes decode as CP932, Latin text too, so decoding alone proves nothing: `Evidence` asks whether what comes
out could have been meant.
"""

from __future__ import annotations

import codecs
import functools
import re
from typing import Literal

# Latin text read as CP932 gives single Japanese characters by chance, never several in a row.
_SEVERAL = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff01-\uff60]{2}|[\uff61-\uff9f]{3}")
_PRIVATE = re.compile("[\ue000-\uf8ff]")
_HALF_WIDTH = "\uff61-\uff9f"
_TAIL = 3


class Evidence:
    """Takes the blocks of a file one after another, and says at the end what they are.

    >>> evidence = Evidence()
    >>> evidence.take("id,判定,温度\\nA1,○,85℃\\n".encode("cp932"))
    >>> evidence.verdict()
    'cp932'
    """

    def __init__(self) -> None:
        self._cp932: codecs.IncrementalDecoder | None = codecs.getincrementaldecoder("cp932")()
        self._euc: codecs.IncrementalDecoder | None = codecs.getincrementaldecoder("euc_jp")()
        self._tail = ""
        self._several = self._single = self._wrong = self._wide = False

    def take(self, block: bytes, *, final: bool = False) -> None:
        """Look at the next block; `final` after the last one."""
        if self._cp932 is not None:
            try:
                self._look(self._cp932.decode(block, final=final))
            except UnicodeDecodeError:
                self._cp932 = None
        if self._euc is not None:
            try:
                if _uncommon().search(self._euc.decode(block, final=final)):
                    self._euc = None
            except UnicodeDecodeError:
                self._euc = None

    def verdict(self) -> Literal["cp932", "euc-jp", "neither"]:
        """What the file is in; "neither" where it reads as no Japanese that anybody would write."""
        self.take(b"", final=True)
        # EUC-JP read as CP932 is half-width katakana and rare kanji: never a character of CP932's first rows.
        if self._euc is not None and not self._wide:
            return "euc-jp"
        plausible = self._several or (self._single and not self._wrong)
        return "cp932" if self._cp932 is not None and plausible else "neither"

    def _look(self, fresh: str) -> None:
        if _PRIVATE.search(fresh):
            self._cp932 = None
            return
        text = self._tail + fresh
        self._tail = text[-_TAIL:]
        common, meant, by_chance = _patterns()
        self._several = self._several or bool(_SEVERAL.search(text))
        self._wide = self._wide or bool(common.search(text))
        self._single = self._single or bool(meant.search(text))
        self._wrong = self._wrong or (not self._several and bool(by_chance.search(text)))


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """A common character; one that stands alone as marks, units and verdicts do; and one as Latin text gives them."""
    common = _decoded("cp932", range(0x81, 0x99), range(0x40, 0xFD))
    letters = re.escape(_decoded("cp932", [*range(0x81, 0xA0), *range(0xE0, 0xFD)], range(0x40, 0x7F)))
    return (
        re.compile(f"[{re.escape(common)}]"),
        re.compile(f"(?<![A-Za-z])[{re.escape(common)}](?![A-Za-z])"),
        # The second byte of such a character was a letter of its own, in the middle of a word; ° and ± are half-width.
        re.compile(
            f"(?<=[a-z])[{letters}]|[{letters}](?=[a-z])|(?<![{_HALF_WIDTH}])[{_HALF_WIDTH}](?![{_HALF_WIDTH}])"
        ),
    )


@functools.cache
def _uncommon() -> re.Pattern[str]:
    """A character that EUC-JP has and a table of inspections hardly: of its rows, the first kanji level is common."""
    rows = [*range(0xA1, 0xA6), *range(0xB0, 0xD0)]
    return re.compile(f"[^\x00-\x7f{re.escape(_decoded('euc_jp', rows, range(0xA1, 0xFF)))}]")


def _decoded(encoding: str, first: list[int] | range, second: range) -> str:
    pairs = (bytes([lead, trail]).decode(encoding, errors="replace") for lead in first for trail in second)
    return "".join(sorted({pair for pair in pairs if len(pair) == 1 and pair != "\ufffd"}))
