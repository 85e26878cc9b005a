"""What `make faults` lets die: its commands are ones that there are, with the words that they take."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from tests.faults.matrix import QUICK, WORKS, Command

COMMANDS = [work for work in WORKS if isinstance(work.run, Command)]


@pytest.mark.parametrize("command", [work.run for work in COMMANDS], ids=[work.name for work in COMMANDS])
def test_a_command_takes_its_words(command: Command) -> None:
    inspect.signature(command.itself()).bind(None, Path(), **command.named)


def test_the_quick_part_is_a_part() -> None:
    assert COMMANDS
    assert set(QUICK) <= {work.name for work in WORKS}
