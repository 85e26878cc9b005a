"""Run by test_cycle_faults.py in a process of its own: cycles on a full disk, without MLflow, on a clock that was set
back, with torn files, and beside others that take in the same files; then the same cycles again.

A process that has used Delta Lake has threads, and must not be forked; this one only imports, and its children work.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from flows.demo import drop
from flows.disk import is_disk_full
from flows.errors import PipelineError, Unavailable
from flows.ingest import ingest_file
from flows.services import free_port
from tests.faults.children import in_child, modules, value_of, warm
from tests.faults.cycle_crashes import Site
from tests.faults.points import watched

FREE = {"table windows": 200, "MLflow": 420}
"""What the disk is meant to be full for -> kB that are free when the cycle begins."""
SIZE = "300m"


class Bench:
    """One workspace, its templates, and what undisturbed cycles of week 1 and then week 2 leave."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder / "workspace")
        self.folder, self.answer = folder, folder / "answer.json"
        self.before, self.after = folder / "before", folder / "after"

    def prepare(self) -> dict[str, Any]:
        """Make the templates; returns the content after one week, and after both."""
        site = self.site
        if in_child(site.prepare, self.answer) != 0:
            raise SystemExit("the history could not be made")
        shutil.copytree(site.folder, self.before)
        one, names = value_of(lambda: (site.cycle(1), [self.content(), modules()])[-1], self.answer)
        warm(names)
        shutil.copytree(site.folder, self.after)
        two = value_of(lambda: (drop(site.context(), site.line, 2), site.cycle(2), self.content())[-1], self.answer)
        return {"one": one, "two": two}

    def content(self) -> dict[str, Any]:
        """All that must be as after the undisturbed run."""
        return self.site.content() | self.site.accounted()

    def tried(self, work: Callable[[], Any]) -> dict[str, Any]:
        """Do a piece of work in a child: what came of it, or the sentence of its error."""
        status = in_child(lambda: _sentence_of(work), self.answer)
        if status != 0:
            return {"error": f"a child ended with status {status}"}
        found: dict[str, Any] = json.loads(self.answer.read_text())
        return found

    def again(self, week: int) -> dict[str, Any]:
        """The cycle of that week once more, and then what the workspace holds."""
        return self.tried(lambda: (self.site.cycle(week), self.content())[-1])


def _sentence_of(work: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"made": work()}
    except (PipelineError, OSError) as error:
        kind = "full" if is_disk_full(error) else "away" if isinstance(error, Unavailable) else type(error).__name__
        return {"error": str(error), "kind": kind}


def full_disk(bench: Bench) -> dict[str, Any]:
    """A disk of its own with a ballast file, so that the cycle fills it; then the ballast is taken away."""
    found = {}
    for what, free in FREE.items():
        bench.site.reset(bench.before)
        ballast = bench.folder / "ballast"
        with ballast.open("wb") as file:
            file.truncate(0)
            space = os.statvfs(bench.folder)
            os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - free * 1024)
        # The answer is written where there is room.
        answer, bench.answer = bench.answer, Path(os.environ["SOFTAD_TEST_ELSEWHERE"])
        first = bench.tried(lambda: bench.site.cycle(1))
        bench.answer = answer
        ballast.unlink()
        found[what] = {"first": first, "then": bench.again(1)}
    return found


def server_down(bench: Bench) -> dict[str, Any]:
    """MLflow's server is killed while a model is being registered, and is back for the next cycle."""
    bench.site.reset(bench.before)
    port = free_port()
    with _mlflow(bench.site.folder, port) as server:

        def cut_off() -> Any:
            def look(what: str, done: bool) -> None:
                if what == "mlflow create_model_version" and not done:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(server.pid, signal.SIGKILL)

            watched(look)
            return _at(port, lambda: bench.site.cycle(1))

        first = bench.tried(cut_off)
    with _mlflow(bench.site.folder, port):
        then = bench.tried(lambda: _at(port, lambda: (bench.site.cycle(1), bench.content())[-1]))
    return {"first": first, "then": then}


def _at(port: int, work: Callable[[], Any]) -> Any:
    os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
    return work()


@contextlib.contextmanager
def _mlflow(workspace: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{workspace / 'mlflow' / 'mlflow.db'}",
    ]  # fmt: skip
    server = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=workspace.parent,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.1)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def clock_back(bench: Bench) -> dict[str, Any]:
    """Between the cycles of two weeks, one on a clock that is nine days slow; the files of week 2 lie there already."""
    site = bench.site
    site.reset(bench.after)
    slow = bench.tried(lambda: (drop(site.context(), site.line, 2), site.cycle_at(site.now(1) - timedelta(days=9)))[-1])
    return {"first": slow, "then": bench.again(2)}


def torn(bench: Bench) -> dict[str, Any]:
    """Three files that were cut while being copied; one comes whole later under its name, two stay as they are."""
    site = bench.site
    site.reset(bench.after)

    def cut() -> dict[str, str]:
        drop(site.context(), site.line, 2)
        whole = site.folder / "inbox" / f"{site.line.week_key(2)}.csv"
        text = whole.read_text()
        packed, table = gzip.compress(text.encode()), io.BytesIO()
        site.line.week(2).inspections.to_parquet(table)
        half = text[: len(text) // 2].rsplit("\n", 1)[0]
        places = {
            whole: f'{half}\n"{text.splitlines()[-1][:3]}'.encode(),
            whole.with_name("torn.csv.gz"): packed[: len(packed) // 2],
            whole.with_name("torn.parquet"): table.getvalue()[: len(table.getvalue()) // 2],
        }
        for path, content in places.items():
            path.write_bytes(content)
            os.utime(path, (time.time() - 3600,) * 2)
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in places}

    lying = bench.tried(cut)["made"]
    early = site.now(2) - timedelta(days=1)
    first = bench.tried(lambda: site.cycle_at(early))
    inbox = site.folder / "inbox"
    kept = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in inbox.iterdir() if path.is_file()}

    def whole() -> None:
        drop(site.context(), site.line, 2)
        (inbox / "labels" / f"{site.line.week_key(2)}.csv").unlink()

    bench.tried(whole)
    return {"lying": lying, "kept": kept, "first": first, "then": bench.again(2)}


def twice_at_once(bench: Bench) -> dict[str, Any]:
    """A cycle, and two processes that are given copies of the files of its inbox, all at the same moment."""
    site = bench.site
    site.reset(bench.before)
    copies = bench.folder / "copies"
    shutil.copytree(site.folder / "inbox", copies)
    files = [*copies.glob("*.csv"), *copies.glob("labels/*.csv")]

    def given() -> list[str]:
        context = site.context()
        return [
            ingest_file(path, context.settings, context.store, context.workspace, now=site.now(1)).status
            for path in files
        ]

    children = []
    for number, work in enumerate((lambda: site.cycle(1), given, given)):
        answer = bench.folder / f"answer-{number}.json"
        child = os.fork()
        if child == 0:
            if number == 0:
                time.sleep(0.2)  # so that either side is the first now and then
            os._exit(in_child(lambda work=work: _sentence_of(work), answer))  # type: ignore[misc]
        children.append((child, answer))
    first = []
    for child, answer in children:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        first.append(json.loads(answer.read_text()) if status == 0 else {"error": f"a child ended with {status}"})
    return {"first": first, "then": bench.again(1)}


FAULTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "full disk": full_disk, "server down": server_down, "clock back": clock_back, "torn": torn,
    "twice at once": twice_at_once,
}  # fmt: skip


def main(folder: Path, wanted: list[str]) -> None:
    """The undisturbed run, then each fault."""
    torch.set_num_threads(1)  # for the children: a pool of threads does not survive a fork
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder / "disk")], capture_output=True, check=False
    )
    try:
        begun = time.perf_counter()
        bench = Bench(folder / "disk")
        result: dict[str, Any] = {"undisturbed": bench.prepare()}
        print(f"undisturbed: {time.perf_counter() - begun:.1f} s", flush=True)
        for name in wanted:
            begun = time.perf_counter()
            can = name != "full disk" or mounted.returncode == 0
            result[name] = FAULTS[name](bench) if can else {"skipped": mounted.stderr.decode().strip()}
            print(f"{name}: {time.perf_counter() - begun:.1f} s", flush=True)
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(folder / "disk")], check=False)
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / "disk").mkdir()
    os.environ["SOFTAD_TEST_ELSEWHERE"] = str(place / "answer.json")
    main(place, sys.argv[2:] or list(FAULTS))
