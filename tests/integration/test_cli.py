"""Errors as a person meets them: one sentence, the right status, nothing changed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app

PARTS = "parts.csv"
HEAVY = ("torch", "mlflow", "prefect", "great_expectations", "evidently", "deltalake", "duckdb", "pandas")


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A workspace with the demo's config and no data."""
    from flows.demo import write_demo_config

    workspace = tmp_path / "workspace"
    write_demo_config(workspace)
    return workspace


def sentence(result: Result, status: int) -> str:
    assert result.exit_code == status, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.output
    assert "Traceback" not in result.output
    return lines[0]


def test_help_loads_no_heavy_library() -> None:
    code = f"import sys; import flows.cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_no_config(tmp_path: Path) -> None:
    assert "softad init DATA" in sentence(call("status", "--workspace", tmp_path / "w"), 2)


def test_an_unknown_key_is_named_with_its_neighbour(prepared: Path) -> None:
    config = prepared / "config.yaml"
    config.write_text(config.read_text() + "monitoring: {alarm_budgt: 0.1}\n")
    said = sentence(call("status", "--workspace", prepared), 2)
    assert "'monitoring.alarm_budgt'" in said
    assert "did you mean 'alarm_budget'?" in said


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("monitoring: {alarm_budget: 2}", "monitoring.alarm_budget"),
        ("alerts: {channels: ['nothing://user:topsecret@host']}", "channel 1 (nothing:…)"),
        ("promotion: [", "not valid YAML"),
    ],
)
def test_a_value_that_does_not_fit(prepared: Path, line: str, told: str) -> None:
    config = prepared / "config.yaml"
    config.write_text(config.read_text() + line + "\n")
    said = sentence(call("config", "check", "--workspace", prepared), 2)
    assert told in said
    assert "topsecret" not in said


def test_a_workspace_of_a_newer_version(prepared: Path) -> None:
    (prepared / "workspace.json").write_text('{"format": 99}')
    said = sentence(call("status", "--workspace", prepared), 2)
    assert "format 99" in said
    assert "newer version" in said


def test_json_is_one_document_also_for_an_error(tmp_path: Path) -> None:
    result = call("status", "--workspace", tmp_path / "w", "--json")
    assert json.loads(result.stdout)["exit_status"] == result.exit_code == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "--jsn"], "error: no such option: --jsn (Possible options: --json, --now); see softad run --help"),
        (["run", "--now", "quatsch"], "error: invalid value for '--now': it should be a valid datetime"),
        (["run", "extra"], "error: got unexpected extra argument(s) (extra); see softad run --help"),
        (["demo", "--weeks", "0"], "error: invalid value for '--weeks': it should be greater than or equal to 1; see"),
        (["demo", "--change", "x"], "error: invalid value for '--change': 'x' is not one of 'none',"),
        (["ingest"], "error: missing argument 'files'; see softad ingest --help"),
        (["alerts", "show"], "error: missing argument 'key'; see softad alerts show --help"),
        (["status", "--workspace"], "error: option '--workspace' requires an argument; see softad status --help"),
        (["statu"], "error: no such command 'statu'; did you mean 'status'? See softad --help"),
        (["quarantine", "lst"], "error: no such command 'lst'; did you mean 'list'? See softad quarantine --help"),
    ],
)
def test_wrong_words_are_told_in_one_sentence(words: list[str], told: str) -> None:
    result = call(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(told) and len(result.stderr.splitlines()) == 1
    depth = 2 if words[0] in {"alerts", "quarantine"} else 1
    result = call(*words[:depth], "--json", *words[depth:])
    assert json.loads(result.stdout) == {"error": result.stderr.removeprefix("error: ").strip(), "exit_status": 2}
    assert result.stderr.startswith(told)


def test_what_stands_after_two_dashes_is_no_option() -> None:
    result = call("run", "--", "--json")
    assert (result.exit_code, result.stdout) == (2, "") and "(--json)" in result.stderr


def test_help_is_still_help() -> None:
    for words in (["--help"], ["alerts", "--help"], ["run", "--help"]):
        result = call(*words)
        assert result.exit_code == 0 and "Usage: " in result.stdout and result.stderr == ""
    for none in ([], ["alerts"]):
        result = call(*none)
        assert result.exit_code == 2 and "Usage: " in result.output and "error: " not in result.output


def test_usage_errors_have_status_2(prepared: Path) -> None:
    assert call("ingest").exit_code == 2
    assert "--repaired" in sentence(call("alerts", "ack", "x", "--workspace", prepared), 2)


@pytest.mark.parametrize("name", ["", "  ", "\u3000"])
def test_a_class_needs_a_name(prepared: Path, name: str) -> None:
    before = (prepared / "config.yaml").read_bytes()
    assert "the name of the class is empty" in sentence(call("config", "add-class", name, "--workspace", prepared), 2)
    assert (prepared / "config.yaml").read_bytes() == before


def test_a_refused_file_among_several_is_told_on_standard_error(prepared: Path, tmp_path: Path) -> None:
    words = ("ingest", tmp_path / "none.csv", tmp_path, "--workspace", prepared)
    result = call(*words)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.splitlines() == [
        f"error: {tmp_path / 'none.csv'}: there is no such file; check the path",
        f"error: {tmp_path} is a folder, no file; name the file in it",
    ]
    result = call(*words, "--json")
    assert result.stderr == "" and len(json.loads(result.stdout)["refused"]) == 2


def test_an_unknown_incident(prepared: Path) -> None:
    said = sentence(call("alerts", "ack", "demo-2026-W01", "--repaired", "--workspace", prepared), 2)
    assert "no incident 'demo-2026-W01'" in said


def test_a_registry_that_is_away(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("SOFTAD_CONFIG__TRACKING__URI", f"http://127.0.0.1:{port}")
    said = sentence(call("status", "--workspace", prepared), 1)
    assert str(port) in said


def test_a_workspace_that_cannot_be_written_is_named_before_prefect_starts(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(prepared / "prefect"))
    monkeypatch.setattr("flows.embedded.start_beside", lambda: pytest.fail("Prefect was started"))
    for name in ("run", "prefect"):
        with monkeypatch.context() as patch:
            patch.setattr(os, "access", lambda path, _, name=name: Path(path).name != name)
            said = sentence(call("run", "--workspace", prepared), 1)
        assert said == (
            f"error: no permission to write at {prepared / name}; check who owns the folder, then run the command again"
        )


def test_a_prefect_server_that_is_away(prepared: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment["PREFECT_API_URL"] = "http://127.0.0.1:9/api"
    ended = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", "--workspace", str(prepared)], env=environment,
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    said = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert "http://127.0.0.1:9/api" in said[0]
    assert "PREFECT_API_URL" in said[0]


def test_nothing_to_learn_from_is_said_with_status_3(prepared: Path) -> None:
    from flows.context import open_context, utc_now
    from flows.cycle import run_steps

    report = run_steps(open_context(None, prepared), now=utc_now())
    assert report.status == 3
    assert "no model yet" in report.notes[0]


def test_a_second_cycle_waits_for_nobody(prepared: Path) -> None:
    from flows.context import open_context, utc_now
    from flows.cycle import run_steps
    from flows.errors import Refused

    context = open_context(None, prepared)
    with context.workspace.lock("cycle"), pytest.raises(Refused, match="another cycle of demo is running"):
        run_steps(context, now=utc_now())


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["export", "1", "--to"], "with --to"),
        (["card", "1", "--out"], "with --out"),
        (["report", "2026-W14", "--to"], "with --to"),
        (["quarantine", "export"], "as FILE"),
        (["init", PARTS, "--config"], "with --config"),
        (["pilot", PARTS, "--page"], "with --page"),
    ],
)
def test_a_place_where_no_file_can_be_written(prepared: Path, tmp_path: Path, words: list[str], option: str) -> None:
    (tmp_path / "parts.csv").write_text(
        "part_id,torque,result\n" + "".join(f"P{n},{n},OK\nN{n},-{n},NG\n" for n in range(40))
    )
    file = tmp_path / "file"
    file.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    rest = [] if words[0] == "pilot" else ["--workspace", prepared]
    given = [tmp_path / "parts.csv" if word == PARTS else word for word in words]
    said = sentence(call(*given, file / "below" / "x", *rest), 2)
    assert (
        said
        == f"error: {file / 'below' / 'x'}: {file} is a file, and nothing can lie in it; name another place {option}"
    )
    if words[0] not in {"export", "card"}:
        more = ["--force"] if words[0] in {"init", "quarantine"} else []
        said = sentence(call(*given, tmp_path, *rest, *more), 2)
        assert said == f"error: {tmp_path} is a folder; name a file {option}"
    assert sorted(path for path in tmp_path.rglob("*") if prepared not in path.parents) == [
        path for path in before if prepared not in path.parents
    ]


def test_a_backup_is_not_restored_onto_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    said = sentence(call("restore", tmp_path / "b.tar.zst", "--workspace", tmp_path / "file"), 2)
    assert said == f"error: {tmp_path / 'file'} is a file; name a folder with --workspace"
    said = sentence(call("restore", tmp_path / "b.tar.zst", "--workspace", tmp_path / "file" / "w"), 2)
    assert said.endswith("nothing can lie in it; name another place with --workspace")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = sentence(call("init", tmp_path / "none.csv", "--workspace", tmp_path / "file"), 3)
    assert "none.csv" in said
