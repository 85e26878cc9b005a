"""Every block of code in the library's README runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import softad

README = Path(softad.__file__).parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_there_are_four_blocks() -> None:
    assert len(BLOCKS) == 4


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_block_runs(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), {"__name__": "readme"})
    if "write_html" in BLOCKS[number]:
        assert (tmp_path / "pilot.html").stat().st_size > 10_000
