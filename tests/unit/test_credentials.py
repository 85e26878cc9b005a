"""Secrets: where they are looked for, who can read them, and that no sentence, dump or digest shows one."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest

from flows.credentials import GENERATED, Secrets, apply, service_variables
from flows.errors import BadConfig
from flows.settings import dump_settings, environment_overrides, load_settings

PRODUCTION = Path(__file__).parents[2] / "configs" / "production.yaml"
CANARY = "canary-7f3a"


def a_config(folder: Path, section: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(
        "name: line-a\ndata: {label: ok, numeric: [x], window: {rows: 500}}\ntask: {classes: ['0', '1']}\n" + section
    )
    return path


def test_they_are_made_once_and_only_this_user_can_read_them(tmp_path: Path) -> None:
    kept = Secrets(tmp_path / "secrets", environment={})
    kept.create()
    before = {name: kept.need(name) for name in GENERATED}
    kept.create()
    assert {name: kept.need(name) for name in GENERATED} == before
    assert len(set(before.values())) == len(GENERATED)
    assert all(len(value) >= 24 for value in before.values())
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept.folder.iterdir()} == {0o600}


def test_the_environment_counts_before_its_file_and_that_before_the_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text(f"{CANARY}\n")
    (tmp_path / "viewer_password").write_text("from the folder\n")
    names: dict[str, str] = {}
    kept = Secrets(tmp_path, environment=names)
    assert kept.get("viewer_password") == "from the folder"
    names["SOFTAD_VIEWER_PASSWORD_FILE"] = str(tmp_path / "mine")
    assert kept.get("viewer_password") == CANARY
    names["SOFTAD_VIEWER_PASSWORD"] = "at once"
    assert kept.get("viewer_password") == "at once"


def test_what_is_missing_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"secret prefect_auth is missing; write it .*SOFTAD_PREFECT_AUTH_FILE"):
        Secrets(tmp_path, environment={}).need("prefect_auth")
    with pytest.raises(BadConfig, match="SOFTAD_PREFECT_AUTH_FILE names /nowhere"):
        Secrets(tmp_path, environment={"SOFTAD_PREFECT_AUTH_FILE": "/nowhere"}).get("prefect_auth")


@pytest.mark.parametrize(
    "section",
    [
        f"services: {{postgres: 'postgresql://softad:{CANARY}@db:5432'}}",
        f"services: {{prefect: 'http://softad:{CANARY}@runs:4200/api'}}",
        f"services: {{postgres: '{CANARY}'}}",
        f"services: {{ports: {{page: {CANARY}}}}}",
        f"tracking: {{uri: 'http://softad:{CANARY}@models:5000'}}",
        f"storage: {{tables: 's3://key:{CANARY}@bucket/x'}}",
        f"storage: {{endpoint: '{CANARY}'}}",
    ],
)
def test_a_password_in_the_config_is_refused_and_not_repeated(tmp_path: Path, section: str) -> None:
    with pytest.raises(BadConfig) as refused:
        load_settings(a_config(tmp_path, section))
    assert CANARY not in str(refused.value)
    assert section.split(":", maxsplit=1)[0] in str(refused.value)


def test_a_port_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="a port is named twice"):
        load_settings(a_config(tmp_path, "services: {ports: {page: 8080, mlflow: 8080}}"))


def test_where_things_are_changes_no_digest(tmp_path: Path) -> None:
    plain = load_settings(a_config(tmp_path, ""))
    placed = load_settings(a_config(tmp_path, "services: {profile: production}\nstorage: {tables: 's3://plant/a'}"))
    assert plain.digest() == placed.digest()


def test_no_secret_is_in_a_dump_or_among_the_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTAD_PREFECT_AUTH", f"softad:{CANARY}")
    monkeypatch.setenv("SOFTAD_CONFIG__ALERTS__CHANNELS", f'["json://user:{CANARY}@alerts.plant/"]')
    monkeypatch.setenv("SOFTAD_CONFIG__MONITORING__SEED", "3")
    kept = Secrets.of(load_settings(PRODUCTION), tmp_path)
    assert kept.get("prefect_auth") == f"softad:{CANARY}"
    assert CANARY not in repr(kept)
    overrides = environment_overrides()
    assert CANARY not in str(overrides)
    assert overrides["SOFTAD_CONFIG__MONITORING__SEED"] == "3"
    monkeypatch.delenv("SOFTAD_CONFIG__ALERTS__CHANNELS")
    assert CANARY not in dump_settings(load_settings(PRODUCTION))


def test_a_person_who_says_who_they_are_does_not_act_as_the_service(tmp_path: Path) -> None:
    settings = load_settings(PRODUCTION)
    kept = Secrets(tmp_path / "secrets", environment={})
    kept.create()
    service: dict[str, str] = {}
    apply(settings, tmp_path, service)
    assert service == service_variables(kept)
    person = {"MLFLOW_TRACKING_USERNAME": "approver", "MLFLOW_TRACKING_PASSWORD": "theirs"}
    apply(settings, tmp_path, person)
    assert person["MLFLOW_TRACKING_PASSWORD"] == "theirs"
    embedded: dict[str, str] = {}
    apply(load_settings(a_config(tmp_path, "")), tmp_path, embedded)
    assert embedded == {}


@pytest.mark.parametrize(
    "alerts",
    [
        "{channels: ['nothing://me:T0pSecretToken@host']}",
        "{channels: ['T0pSecretToken:8080/x']}",
        "{channels: ['hooks.example.com/T0pSecretToken:x']}",
        "{channels: 'mailto://me:T0pSecretToken@host'}",
        "{channels: [{url: T0pSecretToken}]}",
        "{escalate_to: ['slack://T0pSecretToken']}",
        "['json://me:T0pSecretToken@host']",
    ],
)
def test_an_address_that_does_not_parse_is_refused_at_the_load_and_never_printed(
    tmp_path: Path, alerts: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    config = tmp_path / "config.yaml"
    config.write_text(f"name: a\ndata: {{label: y, numeric: [x], window: {{rows: 50}}}}\nalerts: {alerts}\n")
    with pytest.raises(BadConfig, match="alerts") as caught:
        load_settings(config)
    for text in (str(caught.value), *capfd.readouterr(), caplog.text):
        assert "T0pSecretToken" not in text
