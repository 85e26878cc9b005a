"""A scan that remembers its twins: the same looks, the same thresholds, without the looks before being taken again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.lives import SCALES, TwinLives
from monitoring.ranks import bin_ends, scores_of
from monitoring.scan import ConcentrationScan
from monitoring.twin_memory import MOST_FILES, TwinMemory, TwinState

WINDOWS = 40
spacings = np.diff(bin_ends(300), prepend=0, append=301)


def twins() -> TwinLives:
    return TwinLives(spacings, scores_of(spacings), lives=400, seed=3, horizon=WINDOWS)


def fitted(**options: Any) -> ConcentrationScan:
    scan = ConcentrationScan(windows=WINDOWS, window_size=60, alarm_budget=0.2, lives=500, **options)
    rng = np.random.default_rng(0)
    return scan.fit(rng.exponential(size=600), ages=rng.uniform(0, 5, 600) if "label_age" in options else None)


def week(number: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    rng = np.random.default_rng([1, number])
    return rng.exponential(size=50 + number % 7)


def lived(scan: ConcentrationScan, weeks: range, folder: Path | None) -> list[tuple[float | None, float | None]]:
    """Statistic and threshold of each week, the scan being read from its state before each, as a cycle does."""
    found = []
    for number in weeks:
        scan = ConcentrationScan.from_dict(scan.to_dict())
        if folder is not None:
            scan.remember(folder)
        result = scan.update(week(number), window=f"W{number}")
        found.append((result.statistic, result.threshold))
    return found


@given(st.lists(st.integers(20, 90), min_size=1, max_size=30), st.integers(0, 90))
@settings(max_examples=25, deadline=None)
def test_resumed_twins_are_those_that_were_replayed(rows: list[int], following: int) -> None:
    first, looks = twins(), []
    for number, each in enumerate(rows, start=1):
        threshold = first.threshold(each, 0.3 * number / len(rows))
        first.advance(each, threshold)
        looks.append((each, threshold))
    replayed, resumed = twins(), twins()
    replayed.replay(looks)
    resumed.resume(looks, first.state)
    assert replayed.alarmed == resumed.alarmed == first.alarmed
    for one in (replayed, resumed):
        assert one.threshold(following + 10, 0.6) == first.threshold(following + 10, 0.6)
        np.testing.assert_array_equal(one.state.total, first.state.total)


def test_a_scan_that_remembers_judges_as_one_that_does_not(tmp_path: Path) -> None:
    weeks = range(WINDOWS)
    assert lived(fitted(), weeks, tmp_path) == lived(fitted(), weeks, None)
    assert len(list(tmp_path.iterdir())) == 1


def test_each_label_age_has_a_memory_of_its_own(tmp_path: Path) -> None:
    scan = fitted(label_age=(2.0, 4.0))
    plain = ConcentrationScan.from_dict(scan.to_dict())
    scan.remember(tmp_path)
    for number in range(4):
        for age in (2.0, 4.0):
            ours, theirs = (one.update(week(number), window=f"W{number}", age=age).threshold for one in (scan, plain))
            assert ours == theirs
    assert len(list(tmp_path.iterdir())) == 2


def test_only_the_last_windows_are_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = fitted()
    scan.remember(tmp_path)
    for number in range(30):
        scan.update(week(number), window=f"W{number}")
    drawn: list[int] = []
    draw = TwinLives._draw

    def counted(self: TwinLives, look: int, rows: int) -> Any:
        drawn.append(look)
        return draw(self, look, rows)

    monkeypatch.setattr(TwinLives, "_draw", counted)
    again = ConcentrationScan.from_dict(scan.to_dict())
    again.remember(tmp_path)
    expected = again.threshold_for(60)
    assert sorted(drawn) == list(range(30 - SCALES[-1], 31))
    drawn.clear()
    assert ConcentrationScan.from_dict(scan.to_dict()).threshold_for(60) == expected
    assert sorted(drawn) == list(range(31))


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def with_other_looks(path: Path) -> None:
    with np.load(path) as kept:
        np.savez(path, looks=np.array("others"), left=kept["left"], total=kept["total"] + 1)


def of_another_shape(path: Path) -> None:
    with np.load(path) as kept:
        np.savez(path, looks=kept["looks"], left=kept["left"][1:], total=kept["total"][:, 1:])


def of_objects(path: Path) -> None:
    with np.load(path) as kept:
        np.savez(path, looks=kept["looks"], left=kept["left"], total=kept["total"].astype(object))


@pytest.mark.parametrize(
    "spoil", [Path.unlink, shortened, with_other_looks, of_another_shape, of_objects, lambda path: path.write_text("")]
)
def test_a_file_that_is_no_memory_of_these_looks_is_not_believed(tmp_path: Path, spoil: Any) -> None:
    scan = fitted()
    scan.remember(tmp_path)
    for number in range(5):
        scan.update(week(number), window=f"W{number}")
    (file,) = tmp_path.iterdir()
    spoil(file)
    expected = lived(ConcentrationScan.from_dict(scan.to_dict()), range(5, 9), None)
    assert lived(ConcentrationScan.from_dict(scan.to_dict()), range(5, 9), tmp_path) == expected


def test_where_nothing_can_be_written_the_scan_goes_on(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert lived(fitted(), range(3), blocked) == lived(fitted(), range(3), None)
    assert blocked.read_text() == "in the way"


def test_files_of_lives_long_over_go(tmp_path: Path) -> None:
    memory, state = TwinMemory(tmp_path), TwinState(np.ones(2, dtype=bool), np.zeros((1, 2)))
    for seed in range(MOST_FILES + 5):
        memory.keep({"seed": seed}, [(10, None)], state)
    assert len(list(tmp_path.iterdir())) == MOST_FILES
    assert memory.recall({"seed": MOST_FILES + 4}, [(10, None)], (1, 2)) is not None
