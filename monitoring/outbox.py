"""Messages on their way out: on disk until every channel has them, so that a channel that is down loses nothing.

A message is one JSON document, named by its key and state, so the same message put twice is one. For each channel the
document records when it went out; it is written before and after each attempt, so a message is delivered at least once,
and again only where the process died between the sending and the writing. Receivers know a message by its `id`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from monitoring.alerts import Message


def _log() -> Any:
    """On standard error, as it is now: standard output belongs to what a command returns."""
    return structlog.wrap_logger(structlog.PrintLogger(sys.stderr))


FILE, LOG = "file", "log"
"""The channels that are always there."""

PATIENCE = 60.0
"""Seconds that an attempt left behind may still wait for its answer."""


@dataclass(frozen=True)
class Delivery:
    """What one round of deliveries did: messages that are now with all their channels, and those that still wait."""

    delivered: int
    waiting: int


class Outbox:
    """The messages of one workspace.

    Parameters
    ----------
    folder: where they lie; `alerts.jsonl` in it is the file channel.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     outbox = Outbox(Path(folder))
    ...     message = Message("subject", "body", "info", "a", "opened")
    ...     outbox.put(message), outbox.put(message), outbox.waiting()
    (True, False, 1)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, message: Message, channels: Sequence[str] = (), *, at: datetime | None = None) -> bool:
        """Keep a message for delivery; False when the same key and state was put before.

        Parameters
        ----------
        channels: Apprise addresses; only their number and scheme are written down, never a secret.
        """
        path = self._path(message)
        if path.exists():
            return False
        document = {
            "id": path.stem,
            "at": (at or datetime.now(UTC)).isoformat(),
            **asdict(message),
            "channels": dict.fromkeys([FILE, LOG, *names(channels)]),
        }
        _write(path, document)
        return True

    def waiting(self) -> int:
        """Messages that are not with all their channels yet."""
        return sum(1 for _, document in self._documents() if not _complete(document))

    def deliver(self, channels: Sequence[str] = (), *, timeout: float = 10.0) -> Delivery:
        """Send what waits, oldest first.

        Parameters
        ----------
        channels: the present addresses; a message waits only for channels that are still configured.
        timeout: seconds that one channel may take; after that it counts as failed and is tried again next time.
        """
        with self._alone() as alone:
            # Another process is sending the same messages now; sending them here too would double them.
            return self._deliver(channels, timeout) if alone else Delivery(0, self.waiting())

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".deliver.lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def _deliver(self, channels: Sequence[str], timeout: float) -> Delivery:
        addresses = dict(zip(names(channels), channels, strict=True))
        delivered = waiting = 0
        down: set[str] = set()
        for path, document in self._documents():
            if _complete(document):
                continue
            for name, done in document["channels"].items():
                if done is not None or name in down:
                    continue
                if self._send(name, addresses.get(name), document, timeout):
                    document["channels"][name] = datetime.now(UTC).isoformat()
                    _write(path, document)
                elif name not in (FILE, LOG):
                    # One time-out a round is enough: the next message would wait for the same dead channel.
                    down.add(name)
                    _log().warning("channel failed; the message stays in the outbox", channel=name, id=document["id"])
            if _complete(document):
                delivered += 1
            else:
                waiting += 1
        return Delivery(delivered, waiting)

    def send_now(self, message: Message, channels: Sequence[str], *, timeout: float = 10.0) -> dict[str, bool]:
        """Send a message at once and keep nothing; channel -> whether it went out."""
        document = {"id": self._path(message).stem, "at": datetime.now(UTC).isoformat(), **asdict(message)}
        addresses: dict[str, str | None] = {FILE: None, LOG: None, **dict(zip(names(channels), channels, strict=True))}
        return {name: self._send(name, url, document, timeout) for name, url in addresses.items()}

    def _send(self, name: str, url: str | None, document: dict[str, Any], timeout: float) -> bool:
        if name == LOG:
            _log().info(document["subject"], key=document["key"], state=document["state"], id=document["id"])
            return True
        if name == FILE:
            return self._to_file(document)
        if url is None:
            # The channel was taken out of the configuration: nobody waits there any more.
            return True
        return _notify(url, document, timeout)

    def _to_file(self, document: dict[str, Any]) -> bool:
        path = self.folder / "alerts.jsonl"
        line = {name: document[name] for name in ("id", "at", "key", "state", "severity", "subject", "body")}
        known = path.read_text(encoding="utf-8") if path.exists() else ""
        if f'"id": "{document["id"]}"' in known and document["state"] != "test":
            return True
        with path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line, ensure_ascii=False) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        return True

    def _path(self, message: Message) -> Path:
        digest = hashlib.sha256(f"{message.key}\n{message.state}".encode()).hexdigest()[:20]
        return self.folder / f"{digest}.json"

    def _documents(self) -> list[tuple[Path, dict[str, Any]]]:
        found = [(path, json.loads(path.read_text(encoding="utf-8"))) for path in self.folder.glob("*.json")]
        return sorted(found, key=lambda pair: (pair[1]["at"], pair[1]["id"]))


def names(channels: Sequence[str]) -> list[str]:
    """Names for addresses that give no secret away: a digest's start and the scheme.

    >>> names(["mailto://user:secret@host"])[0][:13]
    'mailto-299cf9'
    """
    return [f"{url.split(':', 1)[0]}-{hashlib.sha256(url.encode()).hexdigest()[:6]}" for url in channels]


def _complete(document: dict[str, Any]) -> bool:
    return all(done is not None for done in document["channels"].values())


@dataclass
class _Attempt:
    thread: threading.Thread
    outcome: list[bool]


_attempts: dict[tuple[str, str], _Attempt] = {}
"""Attempts that outlived their time-out, by address and message: a slow receiver may have the message already."""


def _notify(url: str, document: dict[str, Any], timeout: float) -> bool:
    """Send through Apprise, in a thread of its own: a channel that hangs is left behind after the time-out.

    An attempt left behind is not repeated while it lasts; the next round reads its outcome first.
    """
    import apprise

    known = (url, document["id"])
    attempt = _attempts.pop(known, None)
    if attempt is None:
        outcome: list[bool] = []

        def send() -> None:
            target = apprise.Apprise.instantiate(url, suppress_exceptions=True)
            if target is None:
                outcome.append(False)
                return
            # Apprise gives a receiver 4 s by itself; an answer that comes later would count as a failure, and double.
            target.socket_read_timeout = max(timeout, PATIENCE)
            kind = document["severity"] if document["severity"] in {"info", "warning", "failure"} else "info"
            body = f"{document['body']}\n\n[{document['id']}]"
            outcome.append(
                bool(target.notify(title=document["subject"], body=body, notify_type=apprise.NotifyType(kind)))
            )

        attempt = _Attempt(threading.Thread(target=send, daemon=True, name="softad-alert"), outcome)
        attempt.thread.start()
    attempt.thread.join(timeout)
    if attempt.thread.is_alive():
        _attempts[known] = attempt
        return False
    return bool(attempt.outcome and attempt.outcome[0])


def _write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
    with part.open("w", encoding="utf-8") as handle:
        json.dump(document, handle, ensure_ascii=False, indent=1)
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)
