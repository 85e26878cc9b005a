"""Words by which people name columns and classes, in English and Japanese.

A name is a hint and never a proof: what a column holds decides with it, and a person decides after both.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

LABEL = {
    "label": 100, "target": 100, "defect": 90, "fault": 90, "failure": 90, "class": 90, "verdict": 90,
    "judgement": 90, "judgment": 90, "ng": 85, "defective": 90, "anomaly": 85, "abnormal": 80, "fail": 85,
    "diagnosis": 85, "outcome": 85, "result": 80, "ok": 80, "quality": 75, "scrap": 75, "reject": 75,
    "rejected": 75, "failed": 85, "broken": 75, "passed": 80, "pass": 80, "decision": 75, "rating": 55,
    "y": 70, "species": 75, "variety": 60, "response": 60, "grade": 60, "good": 55, "bad": 60, "yield": 60,
    "rul": 70, "medhouseval": 70, "strength": 45, "status": 45, "output": 45,
    "survived": 70, "fraud": 80, "churn": 75, "price": 40,
    "判定": 100, "ラベル": 100, "良否": 100, "合否": 100, "目的変数": 100, "正解": 90, "検査結果": 90, "不良": 85,
    "欠陥": 85, "故障": 85, "異常": 85, "結果": 75, "品質": 70, "等級": 55,
}  # fmt: skip
"""How strongly a name that is this word alone says "this is what the inspection decides"."""

NUMERIC_LABEL = {
    "label", "target", "y", "quality", "yield", "rul", "response", "output", "medhouseval", "strength", "price", "品質",
    "目的変数", "ラベル", "正解", "outcome", "rating", "grade",
}  # fmt: skip
"""Words that name a measured label as well as a class; a number called `fault` with 500 values is no label."""

IDENTIFIER = {
    "id": 100, "uid": 100, "udi": 100, "uuid": 100, "guid": 100, "_id": 100, "key": 70, "serial": 90, "barcode": 90,
    "no": 60, "nr": 60, "number": 60, "identifier": 95, "index": 20, "sn": 70, "番号": 80, "シリアル": 90,
    "管理番号": 90, "識別": 90, "通し番号": 90, "連番": 60,
}  # fmt: skip

NUMBER_WORDS = {"id", "no", "nr", "num", "number", "code", "key", "番号", "コード"}
"""Last words that only say that a name is a number: a `lot_no` is a lot."""

TIME = {
    "timestamp": 100, "datetime": 95, "time": 90, "date": 85, "inspected": 90, "measured": 90, "produced": 85,
    "created": 70, "at": 60, "start": 60, "日時": 100, "検査日時": 100, "時刻": 90, "年月日": 85, "日付": 85,
    "検査日": 85, "製造日": 70, "測定日": 85,
}  # fmt: skip

LATE_TIME = {
    "labelled", "labeled", "label", "updated", "modified", "exported", "uploaded", "repaired", "repair", "end",
    "finished", "closed", "reviewed", "recorded", "shipped", "更新", "修理", "登録", "出荷", "終了",
}  # fmt: skip
"""Words of times that come after the inspection, and so may tell what was decided."""

GROUP = {
    "lot": 100, "batch": 100, "coil": 90, "wafer": 90, "heat": 80, "panel": 80, "cast": 70, "group": 80, "source": 50,
    "patient": 90, "subject": 90, "position": 50, "specimen": 85, "sample": 40, "ロット": 100, "バッチ": 100,
    "溶解": 70,
}  # fmt: skip

SLICE = {
    "machine", "line", "station", "shift", "supplier", "vendor", "product", "type", "model", "tool", "mold", "mould",
    "cavity", "camera", "site", "plant", "operator", "material", "variant", "head", "spindle", "lane", "team", "region",
    "機械", "号機", "設備", "装置", "ライン", "品種", "製品", "品番", "シフト", "直", "班", "金型", "型番", "材料",
    "材質", "仕入先", "工程", "カメラ", "作業者", "工場",
}  # fmt: skip

GOOD_VALUES = {
    "ok", "okay", "good", "normal", "pass", "passed", "none", "no defect", "nodefect", "no_defect", "no fault",
    "no_fault", "no failure", "healthy", "accept", "accepted", "conforming", "fine", "g", "io", "良品", "良", "合格",
    "正常", "異常なし", "欠陥なし", "問題なし", "○", "〇", "適合",
}  # fmt: skip
BAD_VALUES = {
    "ng", "bad", "fail", "failed", "failure", "defect", "defective", "fault", "faulty", "reject", "rejected", "scrap",
    "abnormal", "anomaly", "nok", "n.g.", "broken", "nio", "不良", "不良品", "不合格", "異常", "欠陥", "欠陥あり",
    "異常あり", "×", "不適合",
}  # fmt: skip
YES_VALUES = {"1", "1.0", "yes", "y", "true", "t", "有", "あり", "はい"}
NO_VALUES = {"0", "0.0", "-1", "-1.0", "no", "n", "false", "f", "無", "なし", "いいえ"}

GOOD_NAMES = {"ok", "pass", "passed", "good", "accepted", "accept", "healthy", "合格", "良品"}
BAD_NAMES = {
    "ng", "defect", "fault", "failure", "fail", "failed", "defective", "anomaly", "abnormal", "scrap", "reject",
    "rejected", "broken", "bad", "不良", "欠陥", "故障", "異常",
}  # fmt: skip


def plain(text: str) -> str:
    """The text as words are compared: full-width letters made narrow, lower case, no spaces around.

    >>> plain(" ＯＫ ")
    'ok'
    """
    return unicodedata.normalize("NFKC", text).strip().casefold()


def words_of(name: str) -> list[str]:
    """The words that a column name is made of; Japanese text stays in one piece.

    >>> words_of("MachineFailure_2 [K]"), words_of("Product ID"), words_of("検査日時")
    (['machine', 'failure', '2', 'k'], ['product', 'id'], ['検査日時'])
    """
    text = unicodedata.normalize("NFKC", name)
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", text)
    return [word.casefold() for word in re.split(r"[^\w]+|_+", text) if word]


def strength(name: str, lexicon: dict[str, int]) -> float:
    """How strongly a name says what the lexicon's words mean: whole name 1, last word .6, any word .4.

    >>> strength("label", LABEL), strength("Machine failure", LABEL), strength("x1", LABEL)
    (100.0, 54.0, 0.0)
    >>> strength("検査ロット", GROUP)
    60.0
    """
    found = [0.0]
    words = words_of(name)
    whole = "".join(words)
    for word, weight in lexicon.items():
        if whole in (word, word + "s") or plain(name) == word:
            found.append(float(weight))
        elif words and words[-1] in (word, word + "s"):
            found.append(0.6 * weight)
        elif word in words or word + "s" in words:
            found.append(0.4 * weight)
        elif not word.isascii() and word in whole:
            found.append((0.6 if whole.endswith(word) else 0.4) * weight)
    return max(found)


def without_number_words(name: str) -> str:
    """The name without a last word that only says "number".

    >>> without_number_words("lot_id"), without_number_words("Batch No"), without_number_words("ロット番号")
    ('lot', 'batch', 'ロット')
    >>> without_number_words("id"), without_number_words("lot")
    ('id', 'lot')
    """
    words = words_of(name)
    if len(words) > 1 and words[-1] in NUMBER_WORDS:
        words = words[:-1]
    last = next(
        (end for end in sorted(NUMBER_WORDS, key=len) if not words[-1].isascii() and words[-1].endswith(end)), ""
    )
    if last and words[-1] != last:
        words[-1] = words[-1].removesuffix(last)
    return " ".join(words)


def names_group(name: str) -> bool:
    """Whether a name says that rows with one value of it belong together.

    >>> names_group("lot_id"), names_group("ロット番号"), names_group("検査ロット"), names_group("lot_size")
    (True, True, True, False)
    """
    return max(strength(name, GROUP), strength(without_number_words(name), GROUP)) >= 60


def names_any(name: str, lexicon: Iterable[str]) -> bool:
    """Whether one of the words stands in the name.

    >>> names_any("machine_id", SLICE), names_any("MachiningTime", SLICE), names_any("設備名", SLICE)
    (True, False, True)
    """
    words = words_of(name)
    whole = "".join(words)
    return any(
        word in words or word + "s" in words or (len(word) > 1 and not word.isascii() and word in whole)
        for word in lexicon
    )


def reads_as_good(value: str) -> bool:
    """Whether a class name says that the part is as it should be.

    >>> [reads_as_good(v) for v in ("OK", "良品", "NG", "0")]
    [True, True, False, False]
    """
    return plain(value) in GOOD_VALUES


def is_verdict(values: Iterable[str]) -> bool:
    """Whether all values are words for good or bad, both among them.

    >>> is_verdict(["OK", "NG"]), is_verdict(["良品", "不良品"]), is_verdict(["0", "1"]), is_verdict(["A", "B"])
    (True, True, False, False)
    """
    seen = {plain(value) for value in values}
    return bool(seen & GOOD_VALUES) and bool(seen & BAD_VALUES) and seen <= GOOD_VALUES | BAD_VALUES
