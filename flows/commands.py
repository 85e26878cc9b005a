"""What the main commands do: each opens a context, calls one plain function, and says what came of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.console import Reply
from flows.context import Context, open_context, utc_now
from flows.errors import BadConfig, BadInput, PipelineError, Refused, Unavailable
from flows.summary import (
    cycle_document,
    cycle_lines,
    decision_lines,
    ingest_document,
    labels_ahead,
    status_document,
    status_lines,
)
from flows.workspace import Workspace


def ingest_files(config: Path | None, workspace: Path, files: list[Path]) -> Reply:
    """`softad ingest FILE…`: all files are tried; the worst status of them is returned."""
    from flows.ingest import ingest_file

    context = open_context(config, workspace)
    reports, lines, refused, status = [], [], [], 0
    for file in files:
        try:
            report = ingest_file(file, context.settings, context.store, context.workspace, now=utc_now())
        except BadInput as error:
            if len(files) == 1:
                raise
            refused.append({"file": str(file), "error": str(error)})
            status = error.exit_status
            continue
        reports.append(ingest_document(report))
        lines.extend([_ingest_line(report), *report.sentences, *_labels_ahead(context, report)])
        if report.quarantined:
            status = 3
    errors = [one["error"] for one in refused]
    return Reply({"files": reports, "refused": refused, "exit_status": status}, lines, status, errors)


def _labels_ahead(context: Context, report: Any) -> list[str]:
    """What a person who delivered a label file by hand should hear: labels may come before their rows, or never fit."""
    if report.kind != "labels" or report.status != "accepted":
        return []
    count, first = labels_ahead(context.store, report.sha)
    if not count:
        return []
    said = (
        f"{report.name}: {count:,} of its labels name parts that have not come in, first {first!r}; they wait for them"
    )
    none = count == report.accepted + report.duplicates
    hint = "; see that the ids are written as in the files of inspections" if none else ""
    return [f"{said}{hint}."]


def _ingest_line(report: Any) -> str:
    if report.status == "already":
        return f"{report.name}: these very bytes were taken in before; nothing to do"
    return (
        f"{report.name}: {report.read} rows read = {report.accepted} accepted + {report.quarantined} quarantined "
        f"+ {report.duplicates} skipped as known"
    )


def run_once(config: Path | None, workspace: Path, *, now: datetime | None, quiet: bool) -> Reply:
    """`softad run`."""
    context = open_context(config, workspace)
    with showing(quiet) as say:
        report = run_cycle(config, context, now=now, say=say)
    if now is not None:
        report.notes.extend(_not_yet(context, as_utc(now)))
    return Reply(cycle_document(report), cycle_lines(report), report.status)


def _not_yet(context: Context, moment: datetime) -> list[str]:
    """What is in the tables and had not come at the moment that was given: no window waits for it."""
    later = context.store.sql(
        f'SELECT count(*) AS n, max("_at") AS t FROM inspections WHERE "_at" > \'{moment.isoformat()}\''  # noqa: S608
    )
    if not later["n"].iloc[0]:
        return []
    count, last = int(later["n"].iloc[0]), later["t"].iloc[0]
    return [
        f"{count:,} rows came in after {moment:%Y-%m-%d %H:%M} UTC, which --now says it is (the last at "
        f"{last:%Y-%m-%d %H:%M}): they are scored, and their windows are judged once that time has come"
    ]


def run_cycle(
    config: Path | None, context: Context, *, now: datetime | None, say: Callable[[str], None] | None = None
) -> Any:
    """One cycle, recorded by Prefect: on its server where one is set, embedded elsewhere."""
    from flows.embedded import prepare_environment, quick_settings, start_beside

    prepare_environment(context.workspace.prefect)
    _check_writable(context.workspace)
    start_beside()
    from flows.cycle import PROGRESS, cycle_flow

    moment = as_utc(now) if now is not None else None
    token = PROGRESS.set(say)
    try:
        with quick_settings():
            return cycle_flow(
                config=str(config) if config else None,
                workspace=str(context.workspace.root),
                now=moment.isoformat() if moment else None,
            )
    except PipelineError:
        raise
    except Exception as error:
        away = prefect_away()
        if away is None:
            raise
        raise Unavailable(
            f"the Prefect server at {away} does not answer; start it, or unset PREFECT_API_URL to run without one, "
            "and run again: what was done so far is kept"
        ) from error
    finally:
        PROGRESS.reset(token)


def _check_writable(workspace: Workspace) -> None:
    """Before Prefect is started, which says only that it ended where its folder cannot be written."""
    own = os.environ["PREFECT_HOME"] == str(workspace.prefect)
    for folder in (workspace.runtime, *([workspace.prefect] if own else [])):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def prefect_away() -> str | None:
    """The address of the Prefect server that is configured, where it does not answer; else None.

    >>> os.environ.get("PREFECT_API_URL") is not None or prefect_away() is None
    True
    """
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        return None
    import httpx

    try:
        httpx.get(f"{address.rstrip('/')}/health", timeout=5.0).raise_for_status()
    except httpx.HTTPError:
        return address
    return None


def show_status(config: Path | None, workspace: Path) -> Reply:
    """`softad status`."""
    context = open_context(config, workspace)
    document = status_document(context)
    return Reply(document, status_lines(document))


def retrain_now(config: Path | None, workspace: Path, *, at_run: str | None, quiet: bool) -> Reply:
    """`softad retrain [--at RUN]`: without a run a challenger is trained and brought before the gates."""
    from flows.repetition import lines_of, repeat
    from flows.respond import train_and_consider

    context = open_context(config, workspace)
    now = utc_now()
    with context.workspace.lock("retrain", wait=False), showing(quiet) as say:
        if at_run is not None:
            found = repeat(context, at_run, now=now, progress=say)
            return Reply(found.document(), lines_of(found), 0 if found.equal else Refused.exit_status)
        action = train_and_consider(context, reason=f"by hand {now:%Y-%m-%dT%H:%M:%S}", actor=actor(), now=now, say=say)
    return Reply(action.document(), decision_lines(action), 0 if action.promoted or action.waits else 4)


def promote_version(
    config: Path | None, workspace: Path, *, version: str | None, refuse: str | None, reason: str | None, by: str | None
) -> Reply:
    """`softad promote [VERSION]`, `softad promote --refuse VERSION --reason TEXT`."""
    from flows.respond import consider_version

    context, (who, named) = open_context(config, workspace), acting(by)
    if refuse is not None:
        return _refuse(context, version, refuse, reason, actor=who, named=named)
    action = consider_version(context, version, actor=who, now=utc_now(), by_person=True, named=named)
    return Reply(action.document(), decision_lines(action), 0 if action.promoted or action.waits else 4)


def _refuse(
    context: Context, version: str | None, refused: str, reason: str | None, *, actor: str, named: str
) -> Reply:
    from flows.promote import refuse

    if version is not None:
        raise BadConfig(f"say either what to promote ({version}) or what to refuse ({refused}), not both")
    said = stated(reason, f"version {refused} is refused")
    with context.workspace.lock("promotion", wait=False):
        fresh = refuse(context.store, context.tracker, version=refused, actor=actor, reason=said, now=utc_now(),
                       named=named)  # fmt: skip
    line = f"version {refused} is refused and is not promoted" if fresh else f"version {refused} was refused before"
    return Reply({"refused": refused, "reason": said, "by": actor, "new": fresh}, [line])


def roll_back(
    config: Path | None, workspace: Path, *, reason: str, by: str | None = None, of: str | None = None
) -> Reply:
    """`softad rollback [--of VERSION]`."""
    from flows.credentials import ask_the_running
    from flows.promote import rollback
    from flows.respond import ensure_life

    context, (who, named) = open_context(config, workspace), acting(by)
    ask_the_running(context.settings, context.workspace.root)
    now = utc_now()
    with context.workspace.lock("promotion", wait=False):
        back = rollback(context.store, context.tracker, context.settings, now=now, actor=who, reason=reason,
                        named=named, of=of)  # fmt: skip
        if back.moved:
            ensure_life(context, now=now, actor=who, back=True)
    document = {"champion": back.version, "was": back.replaced, "moved": back.moved, "reason": reason, "by": who}
    if not back.moved:
        return Reply(
            document, [f"version {back.replaced} is not in use, version {back.version} is: nothing was changed"]
        )
    lines = [f"version {back.version} is the champion again; version {back.replaced} was. In the ledger: {reason}"]
    if of is None:
        lines.append(
            f"given again, this command goes forth to version {back.replaced}; one that may be repeated names the "
            f"version to leave: softad rollback --of {back.replaced}"
        )
    return Reply(document, lines)


def bring_up(
    configs: list[Path], workspace: Path, *, profile: str | None, as_json: bool, say: Callable[[str], None]
) -> Reply | None:
    """`softad up`: until Ctrl-C."""
    from flows.up import run_up

    if profile is not None:
        # By the environment, so that every process below reads the config alike.
        os.environ["SOFTAD_CONFIG__SERVICES__PROFILE"] = str(profile)
    paths = _configs(configs, workspace, say)

    def ready(addresses: Any) -> None:
        import json

        from flows.console import plain

        if as_json:
            print(json.dumps(addresses.document(), default=plain), flush=True)
        else:
            for line in addresses.lines():
                print(line, flush=True)

    status = run_up(paths, workspace, ready=ready, say=say)
    if status:
        raise Refused("a service did not come up; its log is in the workspace's logs folder")
    return None


def deploy_to_server(configs: list[Path], workspace: Path, *, replace: bool = False) -> Reply:
    """`softad deploy`: needs a Prefect server's address in PREFECT_API_URL."""
    from flows.settings import load_settings

    if not os.environ.get("PREFECT_API_URL"):
        raise BadConfig(
            "no Prefect server is named: set PREFECT_API_URL to its address (http://HOST:PORT/api), or use "
            "`softad up`, which starts one"
        )
    paths = _configs(configs, workspace, lambda _: None)
    from flows.deployments import deploy

    names = deploy([load_settings(path) for path in paths], workspace, replace=replace)
    return Reply({"deployments": names}, [f"deployed {name}" for name in names])


def _configs(configs: list[Path], workspace: Path, say: Callable[[str], None]) -> list[Path]:
    if configs:
        return [path.absolute() for path in configs]
    path = workspace / "config.yaml"
    if not path.exists():
        from flows.demo import write_demo_config

        say(f"{path} is not there yet: setting up the simulated line of the demo")
        write_demo_config(workspace)
    return [path.absolute()]


@contextmanager
def showing(quiet: bool) -> Iterator[Callable[[str], None] | None]:
    """A line that says what is being done, on standard error; nothing when quiet or not before a terminal."""
    if quiet:
        yield None
        return
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("starting") as status:
        yield status.update


def acting(by: str | None) -> tuple[str, str]:
    """Who acts, for the ledger, and whether the name was declared or is the account's.

    >>> acting("aiko"), acting(None)[1]
    (('aiko', 'declared'), 'account')
    """
    return (by, "declared") if by else (actor(), "account")


def stated(reason: str | None, what: str) -> str:
    """The reason that an act needs, on one line.

    Raises
    ------
    BadConfig: there is none.

    >>> stated("seen  on the bench", "version 2 is refused")
    'seen on the bench'
    """
    said = " ".join((reason or "").split())
    if not said:
        raise BadConfig(f"say why {what}: --reason TEXT; it stands in the ledger")
    return said


def actor() -> str:
    """Who gives the command, for the ledger: the name that the system knows.

    >>> bool(actor())
    True
    """
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def as_utc(moment: datetime) -> datetime:
    """A time without a zone is taken as UTC.

    >>> as_utc(datetime(2026, 1, 5)).isoformat()
    '2026-01-05T00:00:00+00:00'
    """
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


__all__ = ["PipelineError", "actor", "as_utc", "ingest_files", "run_cycle", "run_once", "showing"]
