"""Messages on their way out: on disk until every channel has them, so that a channel that is down loses nothing.

A message is one JSON document, named by its key and state, so the same message put twice is one. For each channel the
document records when it went out; that is written right after the sending, so a message is delivered at least once, and
again only where the process died between the two. Receivers know a message by its `id`.
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
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from monitoring.alerts import Message
from monitoring.channels import PATIENCE, begin_sending, names


def _log() -> Any:
    """On standard error, as it is now: standard output belongs to what a command returns."""
    import structlog

    return structlog.wrap_logger(structlog.PrintLogger(sys.stderr))


FILE, LOG = "file", "log"
"""The channels that are always there."""

_FIELDS = {"id", "at", "channels", *(each.name for each in fields(Message))}

STUBBORN = 3
"""Failures of one message after which the next one is tried too: perhaps it is the message, not the channel."""


@dataclass(frozen=True)
class Delivery:
    """What one round of deliveries did: messages that are now with all their channels, and those that still wait."""

    delivered: int
    waiting: int


class Outbox:
    """The messages of one model; several processes may use it at once.

    A document that cannot be read any more holds up no other one. Where its message is put once more and no channel had
    it, it is written anew; else it stays as it is (`damaged`).

    Parameters
    ----------
    folder: where they lie; `alerts.jsonl` in it is the file channel.
    patience: seconds that a process which ends waits for an answer that is still to come; without one by then, the
        message stays here and is sent again.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     outbox = Outbox(Path(folder))
    ...     message = Message("subject", "body", "info", "a", "opened")
    ...     outbox.put(message), outbox.put(message), outbox.waiting()
    (True, False, 1)
    """

    def __init__(self, folder: Path, *, patience: float = PATIENCE) -> None:
        self.folder = folder
        self.patience = patience

    def put(
        self,
        message: Message,
        channels: Sequence[str] = (),
        *,
        further: Sequence[str] = (),
        at: datetime | None = None,
    ) -> bool:
        """Keep a message for delivery; False when the same key and state was put before.

        Parameters
        ----------
        channels, further: Apprise addresses, those of every message and those of this one; only their scheme and the
            start of a digest are written down, never a secret.
        """
        path = self._path(message)
        if path.exists() and not self._lost(path):
            return False
        with self._locked(".documents.lock"):
            # Looked at again under the lock: another process may have put it, and even delivered it, meanwhile.
            if path.exists() and not self._lost(path):
                return False
            document = {
                "id": path.stem,
                "at": (at or datetime.now(UTC)).isoformat(),
                # Messages of one moment go out in the order in which they were put.
                "number": sum(1 for _ in self.folder.glob("*.json")),
                **asdict(message),
                "channels": dict.fromkeys([FILE, LOG, *names(channels), *names(further)]),
                "further": names(further),
            }
            _write(path, document)
        return True

    def waiting(self) -> int:
        """Messages that are not with all their channels yet."""
        return sum(1 for _, document in self._documents() if not _complete(document))

    def damaged(self) -> dict[Path, str | None]:
        """Files of messages that cannot be read, and the subject that the file channel has under their id, if any.

        They hold up no other message, and stay where they are until a person has seen them.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     outbox = Outbox(Path(folder))
        ...     torn = Path(folder, "0123.json")
        ...     _ = torn.write_text('{"id": ')
        ...     outbox.put(Message("subject", "body", "info", "a", "opened")), outbox.waiting()
        ...     outbox.damaged() == {torn: None}
        (True, 1)
        True
        """
        torn = [path for path in sorted(self.folder.glob("*.json")) if _read_whole(path) is None]
        told = {line["id"]: str(line["subject"]) for line in self._told()} if torn else {}
        return {path: told.get(path.stem) for path in torn if path.exists()}

    def thread(self, key: str) -> list[dict[str, Any]]:
        """The messages of one key, oldest first: `id`, `state`, `at`, `severity`, `subject`, and `channels` with the
        time at which each had it (None: it waits)."""
        wanted = ("id", "state", "at", "severity", "subject", "channels")
        return [{name: each[name] for name in wanted} for _, each in self._documents() if each["key"] == key]

    def deliver(self, channels: Sequence[str] = (), *, further: Sequence[str] = (), timeout: float = 10.0) -> Delivery:
        """Send what waits, oldest first.

        Parameters
        ----------
        channels, further: the present addresses, as in `put`. A message that waits for an address that is no longer
            configured goes to those that were added since.
        timeout: seconds that one channel may take; after that the round goes on without it. A sending that was left
            behind is not repeated while it lasts, and counts once its answer comes.
        """
        with self._alone() as alone:
            # Another process is sending the same messages now; sending them here too would double them.
            return self._deliver(channels, further, timeout) if alone else Delivery(0, self.waiting())

    def send_now(self, message: Message, channels: Sequence[str], *, timeout: float = 10.0) -> dict[str, bool]:
        """Send a message at once and keep nothing; channel -> whether it went out."""
        document = {"id": self._path(message).stem, "at": datetime.now(UTC).isoformat(), **asdict(message)}
        self.folder.mkdir(parents=True, exist_ok=True)
        done = {FILE: self._to_file(document), LOG: _to_log(document)}
        for name, url in zip(names(channels), channels, strict=True):
            outcome: list[bool] = []
            sending = begin_sending(url, document, timeout=timeout, after=outcome.append, patience=self.patience)
            sending.join(timeout)
            done[name] = bool(outcome and outcome[0])
        return done

    def _deliver(self, channels: Sequence[str], further: Sequence[str], timeout: float) -> Delivery:
        addresses = dict(zip([*names(channels), *names(further)], [*channels, *further], strict=True))
        delivered = waiting = 0
        down: set[str] = set()
        for path in self.damaged():
            _log().warning("this message cannot be read; it stays where it is, and is not sent", file=str(path))
        for path, found in self._documents():
            if _complete(found):
                continue
            document = self._readdressed(path, names(channels), names(further))
            for name in [each for each, done in document["channels"].items() if done is None and each not in down]:
                if not self._send(path, name, addresses.get(name, ""), timeout):
                    _log().warning("channel failed; the message stays in the outbox", channel=name, id=document["id"])
                    if _read(path).get("failures", {}).get(name, 0) < STUBBORN:
                        # One time-out a round is enough: the next message would wait for the same dead channel.
                        down.add(name)
            if _complete(_read(path)):
                delivered += 1
            else:
                waiting += 1
        return Delivery(delivered, waiting)

    def _readdressed(self, path: Path, channels: Sequence[str], further: Sequence[str]) -> dict[str, Any]:
        """The document, where an address that it waits for was taken out: with those that came in instead."""
        known = {FILE, LOG, *channels, *further}
        document = _read(path)
        if not any(done is None and name not in known for name, done in document["channels"].items()):
            return document
        with self._change(path) as document:
            for name in [each for each, done in document["channels"].items() if done is None and each not in known]:
                own = name in document.get("further", [])
                added = [each for each in (further if own else channels) if each not in document["channels"]]
                del document["channels"][name]
                document["channels"].update(dict.fromkeys(added))
                document["further"] = [*document.get("further", []), *(added if own else [])]
                _log().warning("channel is no longer configured", channel=name, id=document["id"], instead=added)
        return document

    def _send(self, path: Path, name: str, url: str, timeout: float) -> bool:
        """Send and note it; False where it failed, or is not answered yet."""
        if name in (FILE, LOG):
            document = _read(path)
            sent = self._to_file(document) if name == FILE else _to_log(document)
            self._note(path, name, sent)
            return sent
        claim = self._claim(path.stem, name)
        if claim is None:
            return False  # a sending that was left behind has not ended, in this process or another
        document = _read(path)
        if document["channels"][name] is not None:
            claim.close()
            return True

        def after(sent: bool) -> None:
            try:
                self._note(path, name, sent)
            finally:
                claim.close()

        begin_sending(url, document, timeout=timeout, after=after, patience=self.patience).join(timeout)
        return _read(path)["channels"][name] is not None

    def _claim(self, message: str, name: str) -> IO[str] | None:
        """The right to send a message through a channel, until the handle is closed or the process dies."""
        folder = self.folder / ".sending"
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / f"{message}.{name}").open("w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            return None
        return handle

    def _note(self, path: Path, name: str, sent: bool) -> None:
        with self._change(path) as document:
            if sent:
                document["channels"][name] = datetime.now(UTC).isoformat()
            else:
                failures = document.setdefault("failures", {})
                failures[name] = failures.get(name, 0) + 1

    @contextlib.contextmanager
    def _change(self, path: Path) -> Iterator[dict[str, Any]]:
        with self._locked(".documents.lock"):
            document = _read(path)
            yield document
            _write(path, document)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / name).open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

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

    def _to_file(self, document: dict[str, Any]) -> bool:
        path = self.folder / "alerts.jsonl"
        line = {name: document[name] for name in ("id", "at", "key", "state", "severity", "subject", "body")}
        # Whatever else stands there: it is only looked through.
        known = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
        # A process that died in the middle of a line has not told it, and must not spoil the next one.
        whole = known[: known.rfind("\n") + 1]
        if f'"id": "{document["id"]}"' in whole and document["state"] != "test":
            return True
        start = "" if known == whole else "\n"
        with path.open("a", encoding="utf-8") as handle:
            handle.write(start + json.dumps(line, ensure_ascii=False) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        return True

    def _lost(self, path: Path) -> bool:
        """The document cannot be read, and no channel had it yet: the file channel is always the first."""
        return _read_whole(path) is None and path.stem not in {line["id"] for line in self._told()}

    def _told(self) -> Iterator[dict[str, Any]]:
        """The lines of the file channel, those left out that are none."""
        path = self.folder / "alerts.jsonl"
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict) and {"id", "subject"} <= found.keys():
                    yield found

    def _path(self, message: Message) -> Path:
        digest = hashlib.sha256(f"{message.key}\n{message.state}".encode()).hexdigest()[:20]
        return self.folder / f"{digest}.json"

    def _documents(self) -> list[tuple[Path, dict[str, Any]]]:
        read = ((path, _read_whole(path)) for path in self.folder.glob("*.json"))
        found = [(path, document) for path, document in read if document is not None]
        return sorted(found, key=lambda pair: (pair[1]["at"], pair[1].get("number", 0), pair[1]["id"]))


def _to_log(document: dict[str, Any]) -> bool:
    _log().info(document["subject"], key=document["key"], state=document["state"], id=document["id"])
    return True


def _complete(document: dict[str, Any]) -> bool:
    return all(done is not None for done in document["channels"].values())


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def _read_whole(path: Path) -> dict[str, Any] | None:
    """A message's document; None where the file is not what was written (or is gone)."""
    try:
        document: Any = _read(path)
    except (OSError, ValueError):
        return None
    whole = isinstance(document, dict) and document.keys() >= _FIELDS and isinstance(document["channels"], dict)
    return document if whole else None


def _write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
    with part.open("w", encoding="utf-8") as handle:
        json.dump(document, handle, ensure_ascii=False, indent=1)
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)
