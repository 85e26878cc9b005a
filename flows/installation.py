"""What the installation and the machine give: versions of libraries against the tested set, ports of `softad up`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from flows.doctor import Check
from flows.local_services import Addresses, source_root
from flows.services import Identity, answers, port_is_free
from flows.supervisor import read_record

_SHOWN = 5


def installed(name: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def mismatches(wanted: Iterable[str], have: Callable[[str], str | None] = installed) -> list[str]:
    """Requirements that are not met, with what is there instead; those of other systems and extras are left out.

    >>> mismatches(["torch==2.13.0", "numpy>=2", "gone"], {"torch": "2.13.0+cpu", "numpy": "1.26"}.get)
    ['numpy is 1.26 and must be >=2', 'gone is not installed']
    """
    found = []
    for line in wanted:
        one = Requirement(line)
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        there = have(one.name)
        if there is None:
            found.append(f"{one.name} is not installed")
        elif not one.specifier.contains(there, prereleases=True):
            found.append(f"{one.name} is {there} and must be {one.specifier}")
    return found


def lock_lines(path: Path) -> list[str]:
    """The requirements of a lock file, without its comments and options."""
    lines = (line.split("#", maxsplit=1)[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("-")]


def versions() -> list[Check]:
    """The libraries against what the package requires, and against the set that was tested together."""
    wrong = mismatches(requires("softad") or [])
    if wrong:
        shown = "; ".join(wrong[:_SHOWN])
        return [Check("versions", "act", f"{shown}: install the tested set with "
                      "`pip install --no-deps -r requirements.lock`")]  # fmt: skip
    lock = source_root() / "requirements.lock"
    python = ".".join(str(part) for part in sys.version_info[:3])
    if lock.exists():
        other = [line for line in mismatches(lock_lines(lock)) if not line.endswith("is not installed")]
        if other:
            shown = "; ".join(other[:_SHOWN])
            return [Check("versions", "note", f"{len(other)} libraries differ from requirements.lock, which is what "
                          f"was tested: {shown}")]  # fmt: skip
    return [Check("versions", "good", f"Python {python}, softad {installed('softad')}, libraries as required")]


def ports(root: Path) -> list[Check]:
    """The services that `softad up` runs, or the ports that it would take; and the server that a variable names."""
    from flows.commands import prefect_away

    away = prefect_away()
    if away is not None:
        return [Check("ports", "act", f"PREFECT_API_URL names {away}, which does not answer; start that server, or "
                      "unset the variable")]  # fmt: skip
    record = read_record(root)
    supervisor = record.get("supervisor")
    if supervisor and Identity(**supervisor).alive():
        where = Addresses(**record["addresses"])
        asked = {"prefect": f"{where.prefect_api}/health", "page": f"{where.page}health"}
        asked |= {"mlflow": f"{where.mlflow}/health"} if "mlflow" in record.get("processes", {}) else {}
        silent = [name for name, url in asked.items() if not answers(url)]
        if silent:
            return [Check("ports", "act", f"`softad up` runs and its service {silent[0]} does not answer; see the end "
                          f"of {root / 'logs' / silent[0]}.log, and start it again")]  # fmt: skip
        return [Check("ports", "good", f"`softad up` runs and its services answer; the page: {where.page}")]
    taken = [
        f"{port} ({name})"
        for name, port in record.get("ports", {}).items()
        if isinstance(port, int) and not port_is_free(port)
    ]
    if taken:
        return [Check("ports", "note", f"another program uses port {', '.join(taken)} of last time; `softad up` will "
                      "take others, and bookmarks change")]  # fmt: skip
    named = "; PREFECT_API_URL answers" if os.environ.get("PREFECT_API_URL") else ""
    return [Check("ports", "good", f"`softad up` does not run, and its ports are free{named}")]
