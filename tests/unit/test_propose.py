"""What `init` makes of files that nobody prepared: generated ones, each with something that is easily got wrong."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from sklearn import datasets

from flows.errors import BadConfig, BadInput
from flows.propose import describe, propose, to_json, write
from flows.settings import load_settings
from flows.suite import generous_range
from flows.validate import check
from tests.unit.proposals import ROWS, bad_of, said, save

# -- the label -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["y", "class", "target", "label", "result", "quality", "defect", "failure", "fault", "Machine failure", "判定"],
)
@pytest.mark.parametrize("first", [True, False])
def test_label_is_told_by_its_name_wherever_it_stands(
    tmp_path: Path, measured: pd.DataFrame, name: str, first: bool
) -> None:
    column = pd.DataFrame({name: bad_of(measured).astype(int)})
    found = propose(save(tmp_path, pd.concat([column, measured] if first else [measured, column], axis=1)))
    assert found.settings.data.label == name
    assert found.settings.data.numeric == ["torque", "temperature", "load"]
    assert found.settings.task.classes == ["0", "1"]
    assert found.settings.task.normal == "0"


@pytest.mark.parametrize(
    ("good", "bad"),
    [("OK", "NG"), ("良品", "不良"), ("pass", "fail"), ("good", "bad"), ("合格", "不合格"), ("ＯＫ", "ＮＧ")],
)
def test_words_for_good_and_bad_are_a_label_under_any_name(
    tmp_path: Path, measured: pd.DataFrame, good: str, bad: str
) -> None:
    # The good ones are the rarer here, so that it is the word that decides.
    frame = measured.assign(col7=np.where(bad_of(measured), good, bad))
    found = propose(save(tmp_path, frame))
    assert found.settings.data.label == "col7"
    assert found.settings.task.normal == good


@pytest.mark.parametrize(
    ("name", "values", "normal"),
    [
        ("defect", ("no", "yes"), "no"),
        ("passed", ("no", "yes"), "yes"),
        ("ok", ("0", "1"), "1"),
        ("quality", ("0.0", "1.0"), "0.0"),
        ("Pass/Fail", ("-1", "1"), "-1"),
    ],
)
def test_normal_class(tmp_path: Path, measured: pd.DataFrame, name: str, values: tuple[str, str], normal: str) -> None:
    # The second value is rare: it is taken as good only where the name says so.
    found = propose(save(tmp_path, measured.assign(**{name: np.where(bad_of(measured), values[1], values[0])})))
    assert found.settings.task.normal == normal
    assert sorted(found.settings.task.classes) == sorted(values)


def test_japanese_file_in_cp932(tmp_path: Path, measured: pd.DataFrame) -> None:
    times = pd.date_range("2026-01-05", periods=ROWS, freq="1h").strftime("%Y/%m/%d %H:%M")
    machines = np.array(["1号機", "2号機", "3号機"])[np.arange(ROWS) % 3]
    frame = measured.assign(検査日時=times, 号機=machines, 判定=np.where(bad_of(measured), "不良", "良品"))
    data = propose(save(tmp_path, frame, "検査.csv", encoding="cp932", sep=";")).settings.data
    assert (data.label, data.time, data.time_zone) == ("判定", "検査日時", "Asia/Tokyo")
    assert data.categorical == data.slices == ["号機"]
    assert data.window.period == "week"


def test_one_hot_columns_become_one_label_and_one_hot_features_do_not(tmp_path: Path, measured: pd.DataFrame) -> None:
    kind = np.arange(ROWS) * 3 // ROWS  # sorted by class
    frame = measured.assign(Steel_A=np.arange(ROWS) % 2, Steel_B=1 - np.arange(ROWS) % 2)
    for place, name in enumerate(["Scratch_Fault", "Stain_Fault", "Other_Faults"]):
        frame[name] = (kind == place).astype(int)
    found = propose(save(tmp_path, frame))
    assert found.settings.data.label_columns == ["Scratch_Fault", "Stain_Fault", "Other_Faults"]
    assert found.settings.data.label == "fault"
    assert found.settings.data.slices == ["Steel_A"]
    assert found.settings.data.categorical == ["Steel_A", "Steel_B"]
    assert found.settings.training.split.by == "stratified"
    assert "sorted by class" in said(found, "split")


def test_one_hot_features_at_the_end_are_not_the_label(tmp_path: Path, measured: pd.DataFrame) -> None:
    frame = measured.assign(verdict=np.where(bad_of(measured), "NG", "OK"))
    for place, name in enumerate(["shift_a", "shift_b", "shift_c"]):
        frame[name] = (np.arange(ROWS) % 3 == place).astype(int)
    data = propose(save(tmp_path, frame)).settings.data
    assert data.label == "verdict"
    assert set(data.slices) == {"shift_a", "shift_b", "shift_c"}


def test_several_columns_named_as_a_one_hot_label(tmp_path: Path, measured: pd.DataFrame) -> None:
    frame = measured.assign(a=np.arange(ROWS) % 2, b=1 - np.arange(ROWS) % 2)
    assert propose(save(tmp_path, frame), label="a,b").settings.data.label_columns == ["a", "b"]
    frame.loc[5, "b"] = 1 - frame.loc[5, "b"]
    with pytest.raises(BadConfig, match=r"a, b are no one-hot label: in every row exactly one"):
        propose(save(tmp_path, frame), label="a,b")


def test_coordinates_called_x_and_y_are_not_the_label(tmp_path: Path, measured: pd.DataFrame) -> None:
    frame = measured.rename(columns={"torque": "x", "load": "y"}).assign(ng=bad_of(measured).astype(int))
    assert propose(save(tmp_path, frame)).settings.data.label == "ng"


def test_label_that_cannot_be_told_is_asked_for_with_the_candidates(tmp_path: Path, measured: pd.DataFrame) -> None:
    frame = measured.assign(a=np.arange(ROWS) % 2, b=np.arange(ROWS) % 3)
    with pytest.raises(BadConfig, match=r"name it with --label COL; it could be 'a' \(2 values\), 'b' \(3 values\)"):
        propose(save(tmp_path, frame))
    assert propose(save(tmp_path, frame), label="b").settings.task.classes == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        ("Torque", r"no column 'Torque' \(given with --label\); did you mean 'torque'\?"),
        ("blank", r"'blank' is empty in every row"),
        ("same", r"'same' holds 'x' in every row, so nothing can be learned"),
        ("note", r"1200 different values, too many for classes"),
    ],
)
def test_label_that_cannot_be_one(tmp_path: Path, measured: pd.DataFrame, label: str, sentence: str) -> None:
    frame = measured.assign(blank="", same="x", note=[f"part {n}" for n in range(ROWS)])
    with pytest.raises(BadConfig, match=sentence):
        propose(save(tmp_path, frame), label=label)


# -- the task --------------------------------------------------------------------------------------------------------


def test_diabetes_is_regression(tmp_path: Path) -> None:
    found = propose(save(tmp_path, datasets.load_diabetes(as_frame=True).frame))
    assert found.settings.task.kind == "regression"
    assert found.settings.task.tolerance == 77.0
    assert len(found.settings.data.numeric) == 10
    assert found.leaks == []


def test_many_numbers_are_regression_few_integers_are_classes(tmp_path: Path, measured: pd.DataFrame) -> None:
    grades = np.clip(np.round(measured["torque"] * 1.5 + 6), 3, 9).astype(int)
    few = save(tmp_path, measured.assign(quality=grades))
    assert propose(few).settings.task.classes == ["3", "4", "5", "6", "7", "8", "9"]
    assert propose(few, regression=True).settings.task.kind == "regression"
    many = save(tmp_path, measured.assign(quality=(measured["torque"] * 10 + measured["load"] * 20).round(1)))
    assert propose(many).settings.task.kind == "regression"


def test_regression_of_words_is_refused(tmp_path: Path, measured: pd.DataFrame) -> None:
    path = save(tmp_path, measured.assign(result=np.where(bad_of(measured), "NG", "OK")))
    with pytest.raises(BadConfig, match=r"'result' cannot be regression, it holds text such as 'NG'"):
        propose(path, regression=True)


def test_number_that_is_nearly_the_label_is_a_leak_of_regression(tmp_path: Path, measured: pd.DataFrame) -> None:
    target = (measured["torque"] * 10 + measured["load"] * 20).round(2)
    found = propose(save(tmp_path, measured.assign(copy=(target * 2 + 1).round(1), target=target)))
    assert [leak.column for leak in found.leaks] == ["copy"]
    assert "rank correlation" in found.leaks[0].reason


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "digits"])
def test_textbook_data(tmp_path: Path, name: str) -> None:
    frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
    found = propose(save(tmp_path, frame, f"{name}.csv"))
    assert found.settings.data.label == "target"
    assert found.settings.task.kind == "classification"
    # Only iris has measurements that part one class wholly from the others; they are named, and stay: two classes are
    # still to be told from each other.
    assert found.leaks == []
    parting = [leak.column for leak in found.parting]
    assert parting == (["petal length (cm)", "petal width (cm)"] if name == "iris" else [])
    assert set(parting) <= set(found.settings.data.numeric)
    assert all(f"{column!r} is kept" in said(found, "part") for column in parting)
    assert found.settings.data.numeric
    if name == "breast_cancer":
        assert found.settings.task.normal == "1"


# -- the other roles -------------------------------------------------------------------------------------------------


def test_ids_times_lots_text_and_useless_columns(tmp_path: Path, measured: pd.DataFrame) -> None:
    frame = measured.assign(
        serial_no=np.random.default_rng(0).permutation(ROWS) + 70_000,
        labelled_at=pd.date_range("2026-02-01", periods=ROWS, freq="1h").astype(str),
        inspected_at=pd.date_range("2026-01-05", periods=ROWS, freq="1h").astype(str),
        machine=np.arange(ROWS) % 7,
        lot=[f"L{n // 10:03d}" for n in range(ROWS)],
        comment=[f"seen by eye, part {n}" for n in range(ROWS)],
        site="Kyoto",
        spare="",
        clock="07:30",
        window=measured["load"] * 2,
        result=np.where(bad_of(measured), "NG", "OK"),
    )
    frame.loc[::2, "clock"] = "08:15"
    found = propose(save(tmp_path, frame, sep="\t"))
    data = found.settings.data
    assert (data.id, data.time, data.group) == ("serial_no", "inspected_at", "lot")
    assert data.categorical == data.slices == ["machine"], "numbers of machines are names, not measurements"
    assert data.numeric == ["torque", "temperature", "load"]
    assert set(data.left_out) == {"labelled_at", "comment", "site", "spare", "clock", "window"}
    assert "the same value in every row" in data.left_out["site"]
    assert "empty in every row" in data.left_out["spare"]
    assert "free text or codes" in data.left_out["comment"]
    assert "gives this name to a column of its own" in data.left_out["window"]
    assert found.settings.training.split.by == "group"
    for name in data.left_out:
        assert name in said(found, "left out")


def test_names_that_training_takes_are_those_of_training() -> None:
    from flows.dataset import ADDED
    from flows.proposal_roles import TAKEN

    assert TAKEN == ADDED


def test_a_row_counter_is_no_id(tmp_path: Path, measured: pd.DataFrame) -> None:
    path = tmp_path / "saved_with_index.csv"
    measured.assign(label=bad_of(measured).astype(int)).to_csv(path)  # the index has no header
    found = propose(path)
    assert found.settings.data.id is None
    assert found.settings.data.left_out == {"column 1": "it only counts the rows"}


def test_roles_that_a_person_names(tmp_path: Path, measured: pd.DataFrame) -> None:
    frame = measured.assign(
        key=[f"K{n}" for n in range(ROWS)],
        day=pd.date_range("2026-01-05", periods=ROWS, freq="1h").strftime("%Y%m%d"),
        carrier=np.arange(ROWS) // 40,
        label=bad_of(measured).astype(int),
    )
    path = save(tmp_path, frame)
    found = propose(path, id="key", time="day", group="carrier", name="press-3")
    data = found.settings.data
    assert (data.id, data.time, data.group, found.settings.name) == ("key", "day", "carrier", "press-3")
    for role in ("id", "time", "group"):
        with pytest.raises(BadConfig, match=rf"no column 'nope' \(given with --{role}\)"):
            propose(path, **{role: "nope"})
    with pytest.raises(BadConfig, match="name"):
        propose(path, name="press 3/upper")


@pytest.mark.parametrize(
    ("hours", "gaps", "window"),
    [(1.0, 0, {"period": "week"}), (0.2, 0, {"rows": 100}), (24.0, 0, {"rows": 100}), (1.0, 200, {"rows": 100})],
    ids=["weeks", "too short", "too sparse", "too many without time"],
)
def test_window(tmp_path: Path, measured: pd.DataFrame, hours: float, gaps: int, window: dict[str, Any]) -> None:
    times = pd.Series(pd.date_range("2026-01-05", periods=ROWS, freq=pd.Timedelta(hours=hours)).astype(str))
    times[:gaps] = None
    found = propose(save(tmp_path, measured.assign(time=times, label=bad_of(measured).astype(int))))
    assert found.settings.data.time == "time"
    assert found.settings.data.window.model_dump(exclude_none=True) == window


def test_time_zone_comes_from_the_times(tmp_path: Path, measured: pd.DataFrame) -> None:
    times = pd.date_range("2026-01-05", periods=ROWS, freq="1h")
    for ending, zone in (("+09:00", "Asia/Tokyo"), ("-05:00", "Etc/GMT+5"), ("Z", "UTC"), ("", "UTC")):
        frame = measured.assign(time=times.strftime("%Y-%m-%dT%H:%M:%S") + ending, label=bad_of(measured).astype(int))
        assert propose(save(tmp_path, frame)).settings.data.time_zone == zone


# -- images ----------------------------------------------------------------------------------------------------------


def pictures(path: Path, count: int, side: int = 40) -> Path:
    random = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            buffer = io.BytesIO()
            Image.fromarray(random.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(buffer, "PNG")
            archive.writestr(f"crops/p{number}.png", buffer.getvalue())
    return path


def test_images(tmp_path: Path) -> None:
    count = 240
    archive = pictures(tmp_path / "crops.zip", count)
    frame = pd.DataFrame(
        {
            "file": [f"p{n}.png" for n in range(count)],
            "spot": [f"S{n % 12:02d}" for n in range(count)],
            "source": [f"S{n % 12:02d}-{n % 48:02d}.png" for n in range(count)],
            "x": np.arange(count) * 7 % 100,
            "label": np.arange(count) % 3 == 0,
        }
    )
    frame["area"] = np.where(frame["label"], frame["x"] + 1, 0)
    path = save(tmp_path, frame, "manifest.csv")
    found = propose(path, images=archive)
    data = found.settings.data
    assert (data.image, data.id, data.label, data.group) == ("file", "file", "label", "spot")
    assert data.numeric == data.categorical == []
    assert [leak.column for leak in found.leaks] == ["area"]
    assert found.settings.training.model == "cnn"
    assert data.image_size == 32
    assert "each 'source' lies within one 'spot'" in said(found, "group")
    assert propose(path, images=archive, keep=["x"]).settings.data.numeric == ["x"]

    config = write(found, tmp_path / "config.yaml")
    assert yaml.safe_load(config.read_text())["data"]["images"] == "crops.zip"
    elsewhere = write(found, tmp_path / "other" / "config.yaml")
    assert yaml.safe_load(elsewhere.read_text())["data"]["images"] == str(archive)


def test_images_that_do_not_fit(tmp_path: Path, measured: pd.DataFrame) -> None:
    path = save(tmp_path, measured.assign(label=bad_of(measured).astype(int)))
    with pytest.raises(
        BadInput, match=r"no column names the images of some.zip \(one of its 2 files is 'crops/p0.png'\)"
    ):
        propose(path, images=pictures(tmp_path / "some.zip", 2))
    (tmp_path / "torn.zip").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(BadInput, match="is no zip archive"):
        propose(path, images=tmp_path / "torn.zip")
    with pytest.raises(BadInput, match="is not there"):
        propose(path, images=tmp_path / "none.zip")


def test_manifest_without_images_says_how_to_give_them(tmp_path: Path, measured: pd.DataFrame) -> None:
    frame = measured.assign(photo=[f"{n}.jpg" for n in range(ROWS)], label=bad_of(measured).astype(int))
    found = propose(save(tmp_path, frame))
    assert found.settings.data.image is None
    assert "--images" in said(found, "images")


# -- what is written -------------------------------------------------------------------------------------------------


def test_ranges_are_generous_and_end_where_nature_does() -> None:
    assert generous_range(3.8, 76.6) == (0.0, 150.0)
    assert generous_range(-1.0, 1.0) == (-3.0, 3.0)
    assert generous_range(5.0, 5.0) == (0.0, 10.0)
    assert generous_range(0.0, 1.0)[0] == 0.0
    assert generous_range(-40.0, 0.0)[1] == 0.0
    low, high = generous_range(-1e308, 1e308)
    assert np.isfinite([low, high]).all()
    # A temperature that is above zero today may be below it in winter.
    assert generous_range(2.0, 30.0)[0] < 0


def test_todays_file_passes_its_own_suite(tmp_path: Path, measured: pd.DataFrame) -> None:
    frame = measured.assign(count=np.arange(ROWS) % 5, label=bad_of(measured).astype(int))
    frame.loc[7, "load"] = np.nan
    found = propose(save(tmp_path, frame))
    assert check(frame.astype({"label": str}), found.suite) == []
    worse = frame.astype({"label": str})
    worse.loc[3, "torque"], worse.loc[4, "count"], worse.loc[5, "temperature"] = 1e6, -1, np.nan
    rules = {failure.row: failure.rule for failure in check(worse, found.suite)}
    assert rules == {3: "torque is in range", 4: "count is in range", 5: "temperature is filled"}


def test_config_is_read_back_as_it_was_proposed(tmp_path: Path, measured: pd.DataFrame) -> None:
    awkward = {"torque": "Torque [N·m]: max, min", "temperature": "# temp 'in'\n\"out\"", "load": "yes"}
    frame = measured.rename(columns=awkward).assign(
        no=[f"00{n:05d}" for n in range(ROWS)], code=np.where(bad_of(measured), "- late: #1", "null"),
        判定=np.where(bad_of(measured), "no", "yes"),
    )  # fmt: skip
    path = save(tmp_path, frame)
    found = propose(path)
    config = write(found, tmp_path / "workspace" / "config.yaml")
    read = load_settings(config)
    assert read.model_dump(exclude={"source"}) == found.settings.model_dump(exclude={"source"})
    assert read.task.classes == ["no", "yes"]
    assert sorted(read.data.numeric) == sorted(awkward.values())
    suite = yaml.safe_load((config.parent / "expectations.yaml").read_text(encoding="utf-8"))["expectations"]
    assert suite == found.suite
    text = config.read_text(encoding="utf-8")
    assert f"# to keep it: {' '.join(found.leaks[0].keep_hint.split())}" in text


def test_an_existing_config_is_replaced_only_by_force(tmp_path: Path, measured: pd.DataFrame) -> None:
    found = propose(save(tmp_path, measured.assign(label=bad_of(measured).astype(int))))
    config = tmp_path / "press.yaml"
    config.write_text("mine: yes\n")
    with pytest.raises(BadConfig, match=r"press.yaml is there already; add --force"):
        write(found, config)
    assert config.read_text() == "mine: yes\n"
    assert not (tmp_path / "press.expectations.yaml").exists()
    assert load_settings(write(found, config, force=True)).ingest.expectations == Path("press.expectations.yaml")


def test_environment_does_not_leak_into_what_is_written(
    tmp_path: Path, measured: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, measured.assign(label=bad_of(measured).astype(int)))
    monkeypatch.setenv("SOFTAD_CONFIG__MONITORING__ALARM_BUDGET", "0.2")
    assert propose(path).settings.monitoring.alarm_budget == 0.05


def test_document_and_lines(tmp_path: Path, measured: pd.DataFrame) -> None:
    bad = bad_of(measured)
    found = propose(save(tmp_path, measured.assign(late=bad.astype(int), label=bad.astype(int))))
    document = json.loads(json.dumps(to_json(found)))
    assert document["settings"]["data"]["label"] == "label"
    assert document["leaks"][0]["column"] == "late"
    assert document["leaks"][0]["keep"].endswith("--keep late --force")
    assert document["rows"] == ROWS
    lines = describe(found)
    assert lines[0] == "parts.csv: 1,200 rows."
    assert all("\n" not in line and "np." not in line for line in lines)
