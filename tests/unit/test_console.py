"""What a command prints, and with which status: documents, sentences, never a traceback unasked."""

from __future__ import annotations

import errno
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from flows.console import DebugOption, JsonOption, Reply, command, plain
from flows.errors import BadConfig, BadInput, PipelineError, Refused, Unavailable


def run(ending: BaseException | Reply | None, *words: str) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    @command
    def one(as_json: JsonOption = False, debug: DebugOption = False) -> Reply | None:
        if isinstance(ending, BaseException):
            raise ending
        return ending

    return CliRunner().invoke(app, list(words))


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (BadConfig("a: the key 'b' is unknown"), 2, "a: the key 'b' is unknown"),
        (BadInput("a.csv is empty"), 3, "a.csv is empty"),
        (Refused("another cycle is running"), 4, "another cycle is running"),
        (Unavailable("MLflow does not answer"), 1, "MLflow does not answer"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/x"),
            1,
            "the disk is full at /data/x; free",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/data"), 1, "no permission to write at /data"),
        (OSError(errno.EROFS, "Read-only file system", "/data"), 1, "no permission to write at /data"),
        (OSError(errno.EIO, "Input/output error"), 1, "Input/output error; run again with --debug"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (ZeroDivisionError("division by zero\nsecond line"), 1, "ZeroDivisionError: division by zero); run again"),
    ],
)
@pytest.mark.parametrize("words", [(), ("--json",)])
def test_an_error_is_one_sentence_and_a_status(
    error: BaseException, status: int, told: str, words: tuple[str, ...]
) -> None:
    result = run(error, *words)
    assert result.exit_code == status
    assert result.stderr.startswith("error: ") and told in result.stderr
    assert len(result.stderr.splitlines()) == 1
    if words:
        document = json.loads(result.stdout)
        assert document["exit_status"] == status and told in document["error"]
    else:
        assert result.stdout == ""


def test_debug_shows_the_traceback_on_standard_error_only() -> None:
    result = run(BadInput("a.csv is empty"), "--debug", "--json")
    assert "Traceback" in result.stderr and "BadInput" in result.stderr
    assert json.loads(result.stdout)["exit_status"] == 3


def test_a_reply_has_its_own_status_and_its_lines_are_not_read_as_markup() -> None:
    result = run(Reply({"rows": 3}, ["[bold]3[/bold] rows in [M07]"], status=4))
    assert (result.exit_code, result.stdout) == (4, "[bold]3[/bold] rows in [M07]\n")
    assert result.stderr == ""


def test_a_long_line_is_not_broken() -> None:
    line = "x" * 500
    assert run(Reply({}, [line])).stdout == f"{line}\n"


def test_json_is_one_document_with_the_plants_own_letters() -> None:
    document: dict[str, Any] = {
        "machine": "難しい", "path": Path("a/b"), "at": datetime(2026, 1, 5, tzinfo=UTC), "day": date(2026, 1, 5),
        "share": np.float32(0.5), "rows": np.int64(3),
    }  # fmt: skip
    out = run(Reply(document, ["for people"]), "--json").stdout
    assert json.loads(out) == {
        "machine": "難しい", "path": "a/b", "at": "2026-01-05T00:00:00+00:00", "day": "2026-01-05", "share": 0.5,
        "rows": 3,
    }  # fmt: skip
    assert "難しい" in out and "for people" not in out


def test_nothing_to_say_is_no_line() -> None:
    result = run(None)
    assert (result.exit_code, result.output) == (0, "")


def test_what_json_cannot_hold_is_named() -> None:
    with pytest.raises(TypeError, match="set has no place in a JSON document"):
        plain({1})


def test_a_wrong_option_has_the_status_of_a_wrong_config() -> None:
    assert run(None, "--jsn").exit_code == BadConfig.exit_status == 2


def test_every_error_has_a_status_that_is_not_success() -> None:
    kinds = [PipelineError, *PipelineError.__subclasses__()]
    assert {kind.exit_status for kind in kinds} == {1, 2, 3, 4}
