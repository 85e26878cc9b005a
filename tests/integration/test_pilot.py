"""`softad pilot` on a file: the report, the recommendation, and what is said of a file that cannot be compared on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app

FULL_WIDTH = str.maketrans("0123456789.", "０１２３４５６７８９．")


def parts(path: Path, rows: int = 260, classes: tuple[str, str] = ("OK", "NG")) -> Path:
    frame = table(rows)
    frame["result"] = np.where(frame["result"] == "NG", classes[1], classes[0])
    frame.to_csv(path, index=False)
    return path


def table(rows: int = 260) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    torque, machine = rng.normal(40, 3, rows), rng.choice(["M1", "M2", "M3"], rows)
    worn = torque + 2.0 * (machine == "M2") + rng.normal(0, 1.5, rows) > 43
    frame = pd.DataFrame({"torque_nm": torque, "speed": rng.normal(1500, 90, rows).round(1), "machine": machine})
    return frame.assign(result=np.where(worn, "NG", "OK"))


def run(data: Path, *options: str, seconds: float = 4.0) -> tuple[int, dict[str, Any], Path]:
    page = data.parent / "out" / "pilot.html"
    arguments = ["pilot", str(data), "--budget", str(seconds), "--page", str(page), "--json", *options]
    done = CliRunner().invoke(app, arguments)
    assert "Traceback" not in done.output
    return done.exit_code, json.loads(done.stdout), page


def test_a_file_is_compared_on(tmp_path: Path) -> None:
    data = parts(tmp_path / "parts.csv", rows=400)
    code, said, page = run(data, "--cost-miss", "20", "--cost-false-reject", "1", seconds=30.0)
    assert code == 0, said
    names = [candidate["name"] for candidate in said["candidates"]]
    assert names[0] == "ERM"
    assert said["recommendation"]["name"] in names and said["recommendation"]["reason"]
    assert said["verdict"]["kind"] in ("adopt", "setting", "other", "keep", "short", "unfinished")
    figures = {one["key"]: one for one in said["figures"]}
    for key in ("mean", "tail", "stability"):
        for when in ("plain", "plain_before", "chosen", "chosen_before"):
            found = figures[key][when]
            assert found["low"] < found["value"] < found["high"]
    assert {one["parts"] for one in said["effects"]} == {"hard", "normal"}
    assert said["costs"]["given"] and 0.0 < said["costs"]["cases"][0]["threshold"] < 0.5
    assert len(said["hardest"]) == 20
    text = page.read_text(encoding="utf-8")
    assert 10_000 < len(text.encode()) < 2_000_000
    assert not re.search(r'(src|href)="(?!data:)', text) and "<script" not in text and "url(" not in text
    kept = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    assert kept["recommendation"] == said["recommendation"]
    from flows.settings import Settings

    config = Settings.model_validate(yaml.safe_load(page.with_suffix(".yaml").read_text(encoding="utf-8")))
    assert config.data.label == "result" and config.training.hidden
    pipeline = said["verdict"]["pipeline"]
    assert (config.training.thetas == []) == (pipeline == "ERM"), pipeline


def test_nothing_can_be_learned_from_noise(tmp_path: Path) -> None:
    frame = table(400)
    frame["result"] = np.random.default_rng(1).permutation(frame["result"])
    frame.to_csv(tmp_path / "noise.csv", index=False)
    code, said, page = run(tmp_path / "noise.csv", seconds=30.0)
    assert code == 0
    assert said["verdict"]["kind"] == "nothing" and "nothing can be learned" in said["verdict"]["title"]
    assert said["learnt"]["learnt"] is False
    assert "nothing can be learned" in page.read_text(encoding="utf-8")


def test_columns_that_give_the_label_away_are_named(tmp_path: Path) -> None:
    frame = table(300)
    frame["rework_code"] = np.where(frame["result"] == "NG", "R1", "none")
    frame.to_csv(tmp_path / "leak.csv", index=False)
    code, said, _ = run(tmp_path / "leak.csv", "--label", "result")
    assert code == 0
    leaks = [one["text"] for one in said["quality"] if one["key"] == "leak"]
    assert len(leaks) == 1 and "rework_code" in leaks[0]
    frame[["rework_code", "result"]].to_csv(tmp_path / "only.csv", index=False)
    code, said, _ = run(tmp_path / "only.csv", "--label", "result")
    assert code == 0 and said["verdict"]["kind"] in ("leak", "short"), said["verdict"]
    assert any(one["key"] == "leak-kept" for one in said["quality"])


def test_rows_part_by_time_and_later_ones_are_judged(tmp_path: Path) -> None:
    times = pd.date_range("2026-01-05", periods=400, freq="3h").strftime("%Y-%m-%d %H:%M")
    table(400).assign(inspected_at=times).to_csv(tmp_path / "timed.csv", index=False)
    code, said, _ = run(tmp_path / "timed.csv", seconds=8.0)
    assert code == 0 and said["split"]["by"] == "time" and "inspected_at" in said["split"]["text"][0]
    assert min(one["row"] for one in said["hardest"]) > 400 * 3 / 8
    lots = np.repeat(np.arange(50), 8)
    table(400).assign(lot=[f"L{n}" for n in lots]).to_csv(tmp_path / "lots.csv", index=False)
    code, said, _ = run(tmp_path / "lots.csv")
    assert code == 0 and said["split"]["by"] == "group" and "lot" in said["split"]["text"][0]


def test_japanese_report_of_a_file_in_cp932_with_vendor_characters(tmp_path: Path) -> None:
    frame = table(300).rename(columns={"torque_nm": "トルク", "speed": "回転数", "machine": "号機", "result": "判定"})
    frame["判定"] = np.where(frame["判定"] == "NG", "不良", "良")
    frame["仕入先"] = np.random.default_rng(2).choice(["①㈱髙橋", "Ⅲ工業"], 300)
    frame.to_csv(tmp_path / "検査.csv", index=False, encoding="cp932")
    code, said, page = run(tmp_path / "検査.csv", "--language", "ja")
    assert code == 0, said
    text = page.read_text(encoding="utf-8")
    assert '<html lang="ja">' in text and "㈱髙橋" in text and "結論" in text
    english = re.sub(r"<style.*?</style>|<pre.*?</pre>", "", text, flags=re.S)
    assert "plain training" not in english and "hard parts" not in english
    assert said["label"] == "判定"


def _dates(frame: pd.DataFrame) -> pd.DataFrame:
    days = pd.date_range("2025-11-01", periods=len(frame), freq="D")
    return frame.assign(検査日=[f"{day.year}年{day.month}月{day.day}日" for day in days])


def _wide(frame: pd.DataFrame) -> pd.DataFrame:
    noise = np.random.default_rng(3).normal(size=(len(frame), 2000)).round(2)
    return pd.concat([frame, pd.DataFrame(noise, columns=[f"s{n}" for n in range(2000)])], axis=1)


CLEAN: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str, str]] = {
    "2,000 columns": (_wide, "many-columns", "2,003"),
    "free text": (lambda f: f.assign(note=[f"seen by {n}, {n % 7}" for n in range(len(f))]), "left-text", "note"),
    "japanese dates": (_dates, "rows", "260"),
    "full-width digits": (
        lambda f: f.assign(speed=[f"{v}".translate(FULL_WIDTH) for v in f["speed"]]), "full-width", "speed",
    ),
    "thousands separators": (
        lambda f: f.assign(speed=[f"{v * 9:,.1f}" for v in f["speed"]]), "left-thousands", "speed",
    ),
    "a column all missing": (lambda f: f.assign(empty=None), "left-empty", "empty"),
    "ids": (lambda f: f.assign(part_id=np.arange(len(f)) + 70_001), "id", "part_id"),
    "a counter": (lambda f: f.assign(seq=np.arange(len(f))), "left-counter", "seq"),
}  # fmt: skip


@pytest.mark.parametrize("case", CLEAN)
def test_an_odd_file_runs_and_the_oddity_is_said(case: str, tmp_path: Path) -> None:
    change, key, word = CLEAN[case]
    change(table()).to_csv(tmp_path / "parts.csv", index=False)
    code, said, page = run(tmp_path / "parts.csv", "--label", "result", seconds=3.0)
    assert code == 0, said
    found = [one["text"] for one in said["quality"] if one["key"] == key]
    assert any(word in text for text in found), said["quality"]
    assert page.exists()
    if case == "japanese dates":
        assert said["split"]["by"] == "time", said["split"]


def test_rows_that_are_the_same_are_counted_over_all_that_the_file_says(tmp_path: Path) -> None:
    frame = table().assign(part_id=lambda f: np.arange(len(f)) + 70_001)
    # What gives the label away is no feature, and parts rows all the same.
    alike = frame.assign(torque_nm=1.0, speed=2.0, note=[f"n{n}" for n in range(len(frame))])
    alike.to_csv(tmp_path / "alike.csv", index=False)
    _, said, _ = run(tmp_path / "alike.csv", "--label", "result", seconds=1.0)
    assert "repeated" not in {one["key"] for one in said["quality"]}
    pd.concat([frame, frame.head(7).assign(part_id=range(7))]).to_csv(tmp_path / "twice.csv", index=False)
    _, said, _ = run(tmp_path / "twice.csv", "--label", "result", seconds=1.0)
    [text] = [one["text"] for one in said["quality"] if one["key"] == "repeated"]
    assert "7 rows are the same as another in everything but id and time" in text


REFUSED: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "one class": (lambda f: f.assign(result="OK"), "OK"),
    "30 rows": (lambda f: f.iloc[:30], "30 labelled rows"),
    "12 rows": (lambda f: f.iloc[:12], "12 labelled rows"),
    "all missing": (lambda f: f[["result"]].assign(torque=None, speed=None), "empty in every row"),
    "no label at all": (lambda f: f.assign(result=None), "result"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_compared_on_is_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    change, word = REFUSED[case]
    change(table()).to_csv(tmp_path / "parts.csv", index=False)
    code, said, page = run(tmp_path / "parts.csv", "--label", "result", seconds=2.0)
    assert code in (2, 3), said
    assert "parts.csv" in said["error"] and word in said["error"] and "\n" not in said["error"]
    assert not page.exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [(("--normal", "GOOD"), "OK"), (("--slices", "machne"), "machine"), (("--split", "time"), "--split time"),
     (("--split", "group"), "--group"), (("--cost-miss", "-1"), "--cost-miss")],
)  # fmt: skip
def test_a_wrong_option_is_said(options: tuple[str, ...], word: str, tmp_path: Path) -> None:
    code, said, _ = run(parts(tmp_path / "parts.csv"), *options, seconds=2.0)
    assert code == 2 and word in said["error"], said


def test_an_error_is_all_that_standard_error_has(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["pilot", str(tmp_path / "none.csv"), "--page", str(tmp_path / "pilot.html")])
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


def test_a_number_is_estimated_and_columns_are_read_once_as_init_reads_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    speed = rng.normal(1500, 90, 240)
    frame = pd.DataFrame({"speed": speed.round(1), "load": rng.normal(5, 1, 240).round(3)})
    frame["roughness"] = (0.01 * speed + rng.normal(0, 0.2, 240)).round(4)
    data = tmp_path / "parts.csv"
    frame.to_csv(data, index=False, sep=";")
    code, said, page = run(data, "--label", "roughness", "--regression")
    assert code == 0, said
    assert said["task"] == "regression" and said["rows"] == 240
    assert "unchanged" in said["effects"][0]["text"] or "parts" in said["effects"][0]["text"]
    assert page.exists()
