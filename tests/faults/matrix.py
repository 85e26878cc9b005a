"""The fault matrix: every process of the pipeline dies before and after its writes, is run again, and must end as if
nothing had happened. `make faults` prints it; `make faults ONLY="ingest, person: rollback"` prints a part.

A case is a state between two writes: the process dies right after the one and before the other. Then the same work is
done again, and tables, champion, ledger, files, alerts and every input row are compared with an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from flows.demo import drop
from tests.faults.children import in_child, modules, value_of, warm
from tests.faults.cycle_crashes import Site
from tests.faults.points import CRASHED, dying, recorded, stage_of

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@dataclass(frozen=True)
class Work:
    """What a process does, and the workspace that it begins with."""

    process: str
    scenario: str
    template: str
    run: Callable[[Site], Any]

    @property
    def name(self) -> str:
        return f"{self.process}: {self.scenario}"


@dataclass(frozen=True)
class Case:
    """One death: `wrong` says what was not as after an undisturbed run."""

    process: str
    scenario: str
    stage: str
    point: int
    before: str
    after: str
    wrong: tuple[str, ...]
    seconds: float


class Command:
    """A command as a person gives it."""

    def __init__(self, function: str, **named: Any) -> None:
        self.function, self.named = function, named

    def __call__(self, site: Site) -> Any:
        return self.itself()(None, site.folder, **self.named).document

    def itself(self) -> Callable[..., Any]:
        """The function that does it."""
        from flows import commands, people

        found: Callable[..., Any] = getattr(people if hasattr(people, self.function) else commands, self.function)
        return found


def _first_incident(site: Site) -> str:
    from flows.incidents import all_incidents

    return all_incidents(site.context().store)[0].key


def _acknowledge(**answer: bool) -> Callable[[Site], Any]:
    def run(site: Site) -> Any:
        wanted = {"repaired": False, "new_normal": False, "seen": False} | answer
        at = site.repaired_at(2) if answer.get("repaired") else None
        return Command("acknowledge", key=_first_incident(site), at=at, by="shift", **wanted)(site)

    return run


def _roll_back(site: Site) -> Any:
    """Leave the version that was promoted last, by its number, as a person does who may have to repeat it."""
    from flows import ledger
    from flows.promotions import MOVED

    moves = ledger.read(site.context().store, action=MOVED)
    promoted = [entry.subject for entry in moves if entry.details["decision"].startswith("promotion:")]
    return Command("roll_back", reason="worse at the line", of=promoted[-1])(site)


def _retrain(site: Site) -> Any:
    from flows.retrain_flow import retrain_once

    return retrain_once(site.context(), reason="scheduled", incident=None)


def _ingest(site: Site) -> Any:
    files = [
        path for folder in (site.folder / "inbox", site.folder / "inbox" / "labels") for path in folder.glob("*.csv")
    ]
    return Command("ingest_files", files=sorted(files))(site)


WORKS = (
    Work("cycle", "the first model", "history", lambda site: site.cycle(0)),
    Work("cycle", "an alarm", "before", lambda site: site.cycle(1)),
    Work("cycle", "after new-normal", "new normal", lambda site: site.cycle(2)),
    Work("cycle", "after a repair", "repaired", lambda site: site.cycle(2)),
    Work("retrain", "as scheduled", "another config", _retrain),
    Work("ingest", "files by name", "before", _ingest),
    Work("person", "ack --seen", "alarm", _acknowledge(seen=True)),
    Work("person", "ack --repaired", "alarm", _acknowledge(repaired=True)),
    Work("person", "ack --new-normal", "alarm", _acknowledge(new_normal=True)),
    Work("person", "close", "alarm",
         lambda site: Command("close_incident", key=_first_incident(site), reason="noise", by="shift")(site)),
    Work("person", "rollback", "promoted", _roll_back),
    Work("person", "promote", "scheduled", Command("promote_version", version=None, refuse=None, reason=None, by=None)),
    Work("person", "add-class", "unknown class", Command("add_class", name="scratch", by="shift")),
)  # fmt: skip

QUICK = {
    "cycle: an alarm": ("stage rows", "append quarantine", "file outbox/predictions", "file reports"),
    "retrain: as scheduled": ("mlflow create_model_version", "mlflow set_registered_model_alias"),
    "person: ack --repaired": ("append incidents",),
    "person: close": ("append lives", "append incidents"),
    "person: promote": ("append ledger",),
    "person: add-class": ("file config", "append ledger"),
}
"""Work -> the writes before which `--quick` lets it die; those of test_cycle_crash.py are tried in `make test`."""


class Bench:
    """Templates of one folder, made as they are needed; the workspace itself is always at the same path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.answer = folder / "answer.json"
        # A few rows have a fault of the export, so that the quarantine is written to.
        self.site = Site(folder / "workspace", bad_share=0.01)

    def template(self, name: str) -> Path:
        """A copy of the workspace in the state of that name."""
        place = self.folder / name.replace(" ", "-")
        if not place.exists():
            parent, step = _STATES[name]
            if parent is None:
                shutil.rmtree(self.site.folder, ignore_errors=True)
            else:
                self.site.reset(self.template(parent))
            value_of(lambda: step(self.site) and None, self.answer)
            shutil.copytree(self.site.folder, place)
        return place

    def content(self) -> dict[str, Any]:
        """All that must be as after an undisturbed run."""
        return self.site.content() | self.site.accounted()

    def warm(self) -> None:
        """Import what a cycle with an alarm imports, so that no child has to."""
        template = self.template("before")
        self.site.reset(template)
        warm(value_of(lambda: (self.site.cycle(1), self.content(), modules())[-1], self.answer))

    def undisturbed(self, work: Work) -> tuple[list[str], dict[str, Any]]:
        """What the work writes, in order, and what the workspace holds in the end."""
        self.site.reset(self.template(work.template))
        writes, content = value_of(lambda: [recorded(lambda: work.run(self.site)), self.content()], self.answer)
        return writes, content

    def case(self, work: Work, point: int, writes: list[str], expected: dict[str, Any]) -> Case:
        """Die before the write of this number, do the work again, and compare."""
        begun = time.perf_counter()
        self.site.reset(self.template(work.template))

        def crash() -> None:
            dying(point)
            work.run(self.site)
            os._exit(CRASHED)  # after the last write, before anybody is told

        wrong = []
        status = in_child(crash, self.answer)
        if status != CRASHED:
            wrong.append(f"it ended with status {status} instead of dying")
        again = in_child(lambda: (work.run(self.site), self.content())[-1], self.answer)
        if again != 0:
            wrong.append(f"the same work again ended with status {again}")
        else:
            content = json.loads(self.answer.read_text())
            wrong += [f"{part}: {content[part]} instead of {value}" for part, value in expected.items()
                      if content[part] != value]  # fmt: skip
        before = writes[point - 1] if point else "nothing"
        after = writes[point] if point < len(writes) else "nothing"
        stage = stage_of(after if point < len(writes) else before)
        return Case(work.process, work.scenario, stage, point, before, after, tuple(wrong),
                    round(time.perf_counter() - begun, 1))  # fmt: skip


def _bad_label(site: Site) -> None:
    """Labels of a class that nobody has named yet, for rows that are still to come, taken in."""
    site.cycle(0)
    (site.folder / "inbox" / "labels" / "scratch.csv").write_text("id,label\nX1,scratch\nX2,scratch\n")
    _settle(site)
    site.cycle(0)


def _settle(site: Site) -> None:
    for path in (site.folder / "inbox").rglob("*.csv"):
        os.utime(path, (time.time() - 3600,) * 2)


def _fewer_epochs(site: Site) -> None:
    """Else the same rows would give the champion again, and nothing would be promoted."""
    path = site.folder / "config.yaml"
    document = yaml.safe_load(path.read_text())
    document["training"]["epochs"] //= 2
    path.write_text(yaml.safe_dump(document))


def _trained_only(site: Site) -> None:
    from flows.retrain import retrain

    context = site.context()
    retrain(context.store, context.tracker, context.settings, context.workspace, now=site.now(0), reason="by hand")


_STATES: dict[str, tuple[str | None, Callable[[Site], Any]]] = {
    "history": (None, lambda site: site.begin()),
    "before": ("history", lambda site: (site.cycle(0), drop(site.context(), site.line, 1))),
    "alarm": ("before", lambda site: (site.cycle(1), drop(site.context(), site.line, 2))),
    "new normal": ("alarm", lambda site: site.answer("new-normal")),
    "repaired": ("alarm", lambda site: site.answer("repaired")),
    "promoted": ("new normal", lambda site: site.cycle(2)),
    "another config": ("before", _fewer_epochs),
    "scheduled": ("another config", _trained_only),
    "unknown class": ("history", _bad_label),
}


def chosen(writes: list[str], *, every: bool) -> list[int]:
    """Which states between two writes are tried: all, or one of each kind of neighbours in a row.

    >>> chosen(["append files", *["mlflow log_batch"] * 3, "append ledger"], every=False)
    [0, 1, 2, 4, 5]
    """
    points = list(range(len(writes) + 1))
    if every:
        return points
    pairs = [tuple(writes[max(point - 1, 0) : point + 1]) if 0 < point < len(writes) else (point,) for point in points]
    return [point for point in points if pairs[point] not in pairs[:point]]


def named(words: str) -> list[str]:
    """Works by their names, or by how these begin, separated by commas; in the matrix's order.

    >>> named("ingest, person: ack --s")
    ['ingest: files by name', 'person: ack --seen']
    """
    begin = tuple(word.strip() for word in words.split(",") if word.strip())
    found = [work.name for work in WORKS if work.name.startswith(begin)]
    unknown = [word for word in begin if not any(name.startswith(word) for name in found)]
    if unknown:
        known = ", ".join(work.name for work in WORKS)
        raise SystemExit(f"no work begins with {', '.join(map(repr, unknown))}; there are: {known}")
    return found


def run_works(folder: Path, names: list[str], *, every: bool, quick: bool, say: Callable[[str], None]) -> list[Case]:
    """All cases of these works."""
    bench = Bench(folder)
    bench.warm()
    found = []
    for work in WORKS:
        if work.name not in names:
            continue
        writes, expected = bench.undisturbed(work)
        points = chosen(writes, every=every)
        if quick:
            points = [writes.index(write) for write in QUICK[work.name]]
        say(f"{work.name}: {len(writes)} writes, {len(points)} deaths")
        for point in points:
            case = bench.case(work, point, writes, expected)
            found.append(case)
            say(f"  {'ok   ' if not case.wrong else 'WRONG'} {case.seconds:5.1f} s  {case.before} | {case.after}")
            for line in case.wrong:
                say(f"        {line[:1000]}")
    return found


def table_of(cases: list[dict[str, Any]]) -> Any:
    """Processes by stages: how many cases, and how many of them were wrong."""
    from rich.table import Table

    processes = list(dict.fromkeys(f"{case['process']}: {case['scenario']}" for case in cases))
    stages = list(dict.fromkeys(case["stage"] for case in cases))
    table = Table(title="deaths by process and stage; each run again and compared with an undisturbed run")
    table.add_column("stage")
    for process in processes:
        table.add_column(process, justify="right")
    for stage in stages:
        row = []
        for process in processes:
            here = [
                case for case in cases if f"{case['process']}: {case['scenario']}" == process and case["stage"] == stage
            ]
            bad = sum(bool(case["wrong"]) for case in here)
            row.append("" if not here else f"{len(here)}" if not bad else f"[red]{bad} of {len(here)} WRONG[/red]")
        table.add_row(stage, *row)
    return table


def main(argv: list[str] | None = None) -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="works by name, or how it begins, separated by commas", default="")
    parser.add_argument("--every", action="store_true", help="die at every write, also where the same one is repeated")
    parser.add_argument("--quick", action="store_true", help="a part of a few minutes")
    parser.add_argument("--json", type=Path, default=RESULTS / "faults.json")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # for the children: a pool of threads does not survive a fork
    names = named(options.only) if options.only else [work.name for work in WORKS]
    if options.quick:
        names = [name for name in names if name in QUICK]
    begun = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="softad-faults-"))
    try:
        cases = run_works(
            folder, names, every=options.every, quick=options.quick, say=lambda line: print(line, flush=True)
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = [asdict(case) for case in cases]
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200).print(table_of(found))
    bad = sum(bool(case.wrong) for case in cases)
    seconds = time.perf_counter() - begun
    print(f"{len(cases)} deaths in {seconds:.0f} s, {bad} of them not as undisturbed")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"cases": found, "wrong": bad, "seconds": round(seconds, 1)}, indent=1))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
