"""Trainings side by side: the same bits wherever a model is trained, and nothing lost where a process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from softad import CVaR, Mean, SoftAD, together
from softad.bundle import Prepared, prepare
from softad.loop import TrainingDiverged
from softad.together import Job, train_all
from tests.processes import gone


@pytest.fixture(scope="module")
def rows() -> Prepared:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"a": rng.normal(size=600), "b": rng.normal(size=600), "c": rng.choice(["x", "y"], size=600)})
    labels = np.where(frame["a"] + rng.normal(size=600) > 1, "bad", "ok")
    return prepare(
        frame[:400], labels[:400], frame[400:], labels[400:], task="classification", classes=["ok", "bad"],
        numeric=["a", "b"], categorical=["c"],
    )  # fmt: skip


@pytest.fixture
def no_child_before() -> Iterator[None]:
    together._stop_kept()
    yield
    together._stop_kept()


def jobs(**arguments: object) -> list[Job]:
    settings = {"hidden": (8,), "epochs": 6, "patience": 3, "threads": 1, "seed": 5, **arguments}
    criteria = (Mean(), SoftAD(theta="auto", sigma="auto"), SoftAD(theta=0.2), CVaR(0.9))
    return [Job(criterion, settings) for criterion in criteria]


def leave_all_to_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process takes nothing before the child has ended; what the child could not do then fails the test here."""
    taken, left = together._taken, [None]

    def later(waiting: deque[int], *, first: bool = False) -> int | None:
        return left.pop() if first and left else taken(waiting, first=first)

    monkeypatch.setattr(together, "_taken", later)


def test_a_child_trains_the_same_models_bit_by_bit(rows: Prepared, no_child_before: None) -> None:
    alone, beside = jobs(), jobs()
    expected = train_all(rows, alone)
    begun: list[int] = []
    found = train_all(rows, beside, processes=2, starting=begun.append)
    assert sorted(begun) == [0, 1, 2, 3]
    for (one, first), (other, second) in zip(expected, found, strict=True):
        weights, again = one.model.state_dict(), other.model.state_dict()
        assert all(torch.equal(weights[name], again[name]) for name in weights)
        assert one.temperature == other.temperature
        assert first.best_epoch == second.best_epoch
        assert [epoch.objective for epoch in first.history] == [epoch.objective for epoch in second.history]
        assert not other.model.training
    assert [job.criterion.state() for job in alone] == [job.criterion.state() for job in beside]
    assert alone[1].criterion.state()  # what "auto" stood for came back


def test_a_child_is_kept_for_the_next_retraining(rows: Prepared, no_child_before: None) -> None:
    train_all(rows, jobs(), processes=3)
    kept = [child.process.pid for child in together._KEPT]
    assert len(kept) == 2
    train_all(rows, jobs(), processes=2)
    assert sorted(child.process.pid for child in together._KEPT) == sorted(kept)


def test_a_child_that_is_killed_costs_nothing_but_time(
    rows: Prepared, no_child_before: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train_all(rows, jobs())
    began = together._Child.train

    def killed_at_work(child: together._Child, prepared: Prepared, job: Job) -> dict[str, object]:
        os.kill(child.process.pid, signal.SIGKILL)
        return began(child, prepared, job)

    monkeypatch.setattr(together._Child, "train", killed_at_work)
    with pytest.warns(RuntimeWarning, match=r"\(it ended with status -9\); what it was to train was trained"):
        found = train_all(rows, jobs(), processes=2)
    assert not together._KEPT
    for (one, _), (other, _) in zip(expected, found, strict=True):
        weights, again = one.model.state_dict(), other.model.state_dict()
        assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_child_that_cannot_do_it_says_why_and_it_is_done_here(
    rows: Prepared, no_child_before: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_all(rows, jobs(), processes=2)  # a child that was started before the plant's network could be found
    (tmp_path / "later_networks.py").write_text(
        "from torch import nn\n\n\ndef small(inputs, outputs):\n    return nn.Linear(inputs[0], outputs)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(RuntimeWarning, match=r"failed \(ValueError: name: 'later_networks:small' cannot be imported"):
        found = train_all(rows, jobs(model="later_networks:small"), processes=2)
    assert [type(bundle.model).__name__ for bundle, _ in found] == ["Linear"] * 4
    assert not together._KEPT


def test_what_a_child_cannot_do_is_refused_here_in_its_own_words(rows: Prepared, no_child_before: None) -> None:
    with pytest.raises(ValueError, match="batch_size: 0; allowed: 1 or more"):
        train_all(rows, jobs(batch_size=0), processes=2)
    assert not together._KEPT


def test_a_training_that_diverges_in_a_child_says_where(
    rows: Prepared, no_child_before: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wild = jobs(optimizer="sgd", learning_rate=1e30)[:2]
    expected = train_all(rows, wild)
    leave_all_to_the_child(monkeypatch)
    found = train_all(rows, jobs(optimizer="sgd", learning_rate=1e30)[:2], processes=2)
    assert len(together._KEPT) == 1
    for one, other in zip(expected, found, strict=True):
        assert isinstance(one, TrainingDiverged)
        assert isinstance(other, TrainingDiverged)
        assert str(one) == str(other)
        assert (one.epoch, one.step, one.row) == (other.epoch, other.step, other.row)


def test_a_network_of_the_plants_own_is_found_by_a_child_too(
    rows: Prepared, no_child_before: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "networks_for_children.py").write_text(
        "from torch import nn\n\n\ndef small(inputs, outputs):\n    return nn.Linear(inputs[0], outputs)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    # The child is asked for the first time after the path was set.
    leave_all_to_the_child(monkeypatch)
    found = train_all(rows, jobs(model="networks_for_children:small"), processes=2)
    assert len(together._KEPT) == 1
    assert [type(bundle.model).__name__ for bundle, _ in found] == ["Linear"] * 4


def test_a_child_ends_within_a_training_where_its_parent_is_killed() -> None:
    program = """
import os, signal, threading, time
import numpy as np, pandas as pd
from softad import Mean, together
from softad.bundle import prepare
frame = pd.DataFrame({"a": np.linspace(-1, 1, 4000)})
labels = np.where(frame["a"] > 0, "bad", "ok")
rows = prepare(frame, labels, frame, labels, task="classification", classes=["ok", "bad"], numeric=["a"],
               categorical=[])
jobs = [together.Job(Mean(), {"epochs": 100000, "patience": None, "batch_size": 8})] * 2
began = together._Child.train
def told(child, *job):
    print(child.process.pid, flush=True)
    return began(child, *job)
together._Child.train = told
threading.Thread(target=together.train_all, args=(rows, jobs), kwargs={"processes": 2}, daemon=True).start()
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(6)  # long enough for it to be at work
        os.kill(child, 0)
        parent.kill()
    assert gone(child)
