"""What a text that is no UTF-8 is in: Japanese that was meant, or Latin text that happens to decode."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.encodings import Evidence

HEADER = "id,time,machine,result,x\n"


def verdict(raw: bytes, size: int = 1 << 22) -> str:
    evidence = Evidence()
    for start in range(0, len(raw), size):
        evidence.take(raw[start : start + size])
    return evidence.verdict()


CP932 = [
    "○", "良", "85℃", "㎜", "疵○", "×,△", "NG品,否", "ﾗｲﾝ", "ﾌﾟﾚｽ", "外観検査", "可(手直し)", "第1", "μm,○", "ライン①",
    "±0.5",
]  # fmt: skip


@pytest.mark.parametrize("text", CP932)
@pytest.mark.parametrize("size", [1, 7, 1 << 22])
def test_japanese_as_windows_writes_it(text: str, size: int) -> None:
    assert verdict((HEADER + f"A1,2026-04-01,M1,{text},1\n" * 3).encode("cp932"), size) == "cp932"


LATIN = [
    "Gerät", "défaut", "Métal", "à peine", "25°C", "±0.5", "5µm", "été", "año", "Größe", "ár", "Škoda", "it’s",
    "DON’T", "“École”", "5–10", "Œuvre", "façade", "naïve", "Ångström", "Øresund",
]  # fmt: skip


@pytest.mark.parametrize("text", LATIN)
def test_latin_text_is_never_taken_for_japanese(text: str) -> None:
    for encoding in ("latin-1", "cp1252"):
        raw = (HEADER + f"A1,2026-04-01,M1,{text},1\n" * 3).encode(encoding, errors="ignore")
        assert raw.isascii() or verdict(raw) == "neither"


@pytest.mark.parametrize("text", ["良", "不良", "合格", "ライン", "外観検査,きず", "○", "A品"])
def test_japanese_as_unix_wrote_it_is_named(text: str) -> None:
    for size in (1, 1 << 22):
        assert verdict((HEADER + f"A1,2026-04-01,M1,{text},1\n").encode("euc_jp"), size) == "euc-jp"


@given(st.lists(st.text(st.characters(min_codepoint=0x3041, max_codepoint=0x30F6), min_size=2), min_size=1))
def test_words_in_kana_are_told_apart(words: list[str]) -> None:
    text = HEADER + "".join(f"A1,2026-04-01,M1,{word},1\n" for word in words)
    kept = text.encode("cp932", errors="ignore").decode("cp932")
    for encoding, expected in (("cp932", "cp932"), ("euc_jp", "euc-jp")):
        raw = kept.encode(encoding, errors="ignore")
        assert raw.isascii() or verdict(raw) == expected
