"""Two models in one workspace: whatever happens to one, the other's cycle is done and its page fresh."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows.apart import check_apart
from flows.cli import app
from flows.errors import BadConfig, PipelineError
from flows.settings import Settings, load_settings
from flows.up import run_up
from flows.upkeep_flow import weekly_report
from tests.integration.weekly_model import LINE, TRAINING, Model

pytestmark = pytest.mark.slow


@pytest.fixture
def pair(tmp_path: Path, line_config: Callable[..., Settings], empty_mlflow: Path) -> tuple[Model, Model]:
    root = tmp_path / "plant"

    def model(name: str, database: Path | None = None) -> Model:
        ingest = {"inbox": f"inbox/{name}", "outbox": f"outbox/{name}", "settle_seconds": 0}
        settings = line_config(name, ingest=ingest, training=TRAINING, promotion={"resamples": 400})
        return Model(settings, root, database)

    return model("line-a", empty_mlflow), model("line-b")


def test_one_with_broken_data_does_not_hold_up_the_other(pair: tuple[Model, Model]) -> None:
    broken, whole = pair
    for week in (-2, -1, 0):
        whole.drop(week)
    inbox = broken.context.workspace.inbox
    (inbox / "torn.csv").write_bytes(LINE.week(0).inspections.to_csv(index=False).encode()[:-37])
    (inbox / "noise.parquet").write_bytes(bytes(range(256)) * 40)
    (inbox / "labels" / "other.csv").write_text("what;is;this\n1;2;3\n")
    assert broken.cycle(0).status == 3
    done = whole.cycle(0)
    assert [one.status for one in done.ingests if one.status == "refused"] == []
    assert whole.context.tracker.champion() == "1"
    assert broken.context.tracker.champion() is None
    assert whole.context.store.count("predictions") == whole.context.store.count("inspections") == 1500

    # Worse: a table of the one is damaged, and its cycle cannot be done at all.
    log = broken.context.workspace.tables / "files" / "_delta_log" / f"{0:020}.json"
    log.write_text("{")
    before = whole.page
    whole.drop(1)
    # A cycle of the one that hangs holds its own lock only.
    with broken.context.workspace.lock("cycle"), broken.context.workspace.lock("retrain"):
        whole.cycle(1)
    damaged = Model(broken.context.settings, broken.context.workspace.root)
    with pytest.raises(PipelineError):
        damaged.cycle(1)
    assert whole.page != before
    assert whole.context.store.count("predictions") == 2000
    whole.drop(2)
    assert whole.cycle(2).status == 0


def test_models_that_share_an_inbox_are_not_started_together(
    tmp_path: Path, line_config: Callable[..., Settings]
) -> None:
    def model(name: str, **ingest: str) -> Settings:
        return line_config(name, ingest=ingest)

    first = model("line-a")
    assert check_apart([first, model("line-b", inbox="in/b", outbox="out/b")], tmp_path) == {"line-a", "line-b"}
    for other, sentence in (
        (
            model("line-b"),
            r"line-a and line-b have one inbox, .*inbox; give each its own, such as `inbox: inbox/line-b`",
        ),
        (model("line-b", inbox="./x/../inbox", outbox="o"), "have one inbox"),
        (model("line-b", inbox="inbox/labels", outbox="o"), "have one inbox, .*labels"),
        (model("line-b", inbox=str(tmp_path / "inbox"), outbox="o"), "have one inbox"),
        (model("line-b", inbox="in/b"), "line-a and line-b have one outbox"),
        (model("line-a", inbox="in/b", outbox="out/b"), "two configs are named 'line-a'"),
    ):
        with pytest.raises(BadConfig, match=sentence):
            check_apart([first, other], tmp_path)
    configs = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    for path in configs:
        data = {"label": "ok", "numeric": ["x"], "window": {"rows": 500}}
        path.write_text(yaml.safe_dump({"name": path.stem, "data": data}))
    with pytest.raises(BadConfig, match="have one inbox"):
        run_up(configs, tmp_path / "plant", ready=lambda _: None)
    assert not (tmp_path / "plant" / "run").exists()


def test_init_gives_a_second_model_folders_of_its_own(tmp_path: Path) -> None:
    LINE.week(0).inspections.assign(result=LINE.week(0).labels["label"].to_numpy()).to_csv(
        tmp_path / "parts.csv", index=False
    )

    def init(name: str, config: str, *more: str) -> tuple[str, Settings]:
        words = ["init", str(tmp_path / "parts.csv"), "--name", name, "--config", str(tmp_path / config),
                 "--workspace", str(tmp_path / "plant"), *more]  # fmt: skip
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        return done.output, load_settings(tmp_path / config)

    said, first = init("line-a", "a.yaml")
    assert first.ingest.inbox == Path("inbox") and "another model" not in said
    _, first = init("line-aa", "a.yaml", "--force")  # the same config under another name is no second model
    assert first.ingest.inbox == Path("inbox")
    said, second = init("line-b", "b.yaml")
    assert second.ingest.inbox == Path("inbox/line-b") and second.ingest.outbox == Path("outbox/line-b")
    assert "inbox/line-b, since the workspace has another model already" in " ".join(said.split())
    assert "# found: inbox: " not in (tmp_path / "b.yaml").read_text()
    assert check_apart([first, second], tmp_path / "plant") == {"line-aa", "line-b"}
    assert (tmp_path / "plant" / "inbox" / "line-b" / "labels").is_dir()


def test_init_never_takes_another_models_name(tmp_path: Path) -> None:
    week = LINE.week(0)
    rows = week.inspections.assign(result=week.labels["label"].to_numpy())
    for name in ("検査一.csv", "検査二.csv"):
        rows.to_csv(tmp_path / name, index=False)

    def init(data: str, config: str, *more: str) -> Any:
        words = [
            "init",
            str(tmp_path / data),
            "--config",
            str(tmp_path / config),
            "--workspace",
            str(tmp_path / "plant"),
        ]
        return CliRunner().invoke(app, [*words, *more])

    def named(config: str) -> str:
        return load_settings(tmp_path / config).name

    assert init("検査一.csv", "one.yaml").exit_code == 0
    (tmp_path / "plant" / "tables" / "model" / "files").mkdir()
    said = init("検査二.csv", "two.yaml")
    assert "name: 'model-2', since the workspace has a model 'model' already" in said.output
    assert (named("one.yaml"), named("two.yaml")) == ("model", "model-2")
    assert load_settings(tmp_path / "two.yaml").ingest.inbox == Path("inbox/model-2")
    # The same config once more is the same model.
    assert init("検査一.csv", "one.yaml", "--force").exit_code == 0
    assert named("one.yaml") == "model"
    # A name that a person gives is taken or refused, never changed.
    said = init("検査二.csv", "three.yaml", "--name", "model")
    assert said.exit_code == 2
    assert "has a model 'model' already" in said.output
    assert not (tmp_path / "three.yaml").exists()
    assert init("検査二.csv", "three.yaml", "--name", "model", "--force").exit_code == 0
    assert named("three.yaml") == "model"


def test_the_weeks_report_is_kept_and_announced_once(pair: tuple[Model, Model]) -> None:
    _, whole = pair
    whole.drop(0)
    day = LINE.start + timedelta(weeks=1)
    monday = datetime(day.year, day.month, day.day, 7, tzinfo=UTC)
    whole.cycle(0)
    report = weekly_report(whole.context, now=monday)
    assert weekly_report(whole.context, now=monday + timedelta(hours=1)) == report
    year, number, _ = LINE.start.isocalendar()
    assert report.name == f"{year}-W{number:02}.html"
    assert report.read_text().startswith("<!")
    outbox = whole.context.workspace.outbox / "alerts" / "line-b"
    told = [text for path in outbox.rglob("*.json") if "report of the week" in (text := path.read_text())]
    assert len(told) == 1
    assert "500 parts were taken in" in told[0]


def test_a_schedule_that_is_none_is_refused_by_its_name(tmp_path: Path) -> None:
    from flows.deployments import _plans
    from flows.errors import BadConfig
    from flows.settings import load_settings

    path = tmp_path / "config.yaml"
    document = {
        "name": "line-a", "data": {"label": "ok", "numeric": ["x"], "window": {"rows": 500}},
        "schedule": {"report": "on Mondays"},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(BadConfig, match=r"schedule\.report: 'on Mondays' is neither a cron line"):
        _plans(load_settings(path), tmp_path)
    document["schedule"] = {"report": None, "maintain": "15 1 * * *"}
    path.write_text(yaml.safe_dump(document))
    plans = _plans(load_settings(path), tmp_path)
    assert (plans["report"]["schedule"], plans["maintain"]["schedule"].cron) == (None, "15 1 * * *")
