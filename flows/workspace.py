"""Where a plant's data lies: the folders of one workspace, its format version, and its lock.

::

    workspace/
      workspace.json        format version; a newer one is refused
      config.yaml           the default config (several models: one config each, named with --config)
      inbox/  inbox/labels/ files to take in (per model: `ingest.inbox`)
      archive/<model>/      files that were taken in
      outbox/predictions/   what the plant's systems read
      outbox/alerts/        alerts, one JSON document each
      tables/<model>/       Delta tables
      images/<model>/       images by content hash
      reports/<model>/      Evidently reports, JSON and HTML
      page/<model>/         the page
      mlflow/ prefect/ logs/ cache/ run/
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.errors import BadConfig, Refused
from flows.relocation import relocate
from flows.settings import Settings

FORMAT = 2
"""Version of the workspace's layout; raised when an older program must not work in it.

2: whoever writes holds `run/workspace.lock`, so that a backup can wait for it and keep it waiting.
"""

WHOLE = "workspace.lock"


@dataclass(frozen=True)
class Workspace:
    """One workspace seen by one model.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     place = Workspace.open(Path(folder) / "workspace", "line-a")
    ...     (place.root / "workspace.json").exists(), place.tables.name
    (True, 'line-a')
    """

    root: Path
    model: str
    inbox: Path
    outbox: Path

    @classmethod
    def at(cls, root: Path, model: str = "default", settings: Settings | None = None) -> Workspace:
        """A workspace's places; nothing is looked at or made.

        >>> Workspace.at(Path("/plant/workspace")).tables.as_posix()
        '/plant/workspace/tables/default'
        """
        root = root.absolute()
        inbox = root / (settings.ingest.inbox if settings else "inbox")
        outbox = root / (settings.ingest.outbox if settings else "outbox")
        return cls(root=root, model=settings.name if settings else model, inbox=inbox, outbox=outbox)

    @classmethod
    def open(cls, root: Path, model: str = "default", settings: Settings | None = None) -> Workspace:
        """Open a workspace, making its folders where they are missing.

        Raises
        ------
        BadConfig: the workspace was made by a newer version, or its folder cannot be written.
        Unavailable, Damaged: the registry of a workspace that was moved cannot be put right.
        """
        place = cls.at(root, model, settings)
        root = place.root
        marker = root / "workspace.json"
        try:
            if marker.exists():
                check_format(root)
                relocate(root)
            else:
                root.mkdir(parents=True, exist_ok=True)
                write_atomically(marker, json.dumps({"format": FORMAT}) + "\n")
            results = (place.outbox / "predictions", place.outbox / "alerts")
            for folder in (place.inbox / "labels", *results, place.tables, place.page):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadConfig(
                f"{root}: the workspace cannot be written ({error.strerror}); give a folder that can, with --workspace"
            ) from error
        return place

    @property
    def tables(self) -> Path:
        """Delta tables of this model."""
        return self.root / "tables" / self.model

    @property
    def images(self) -> Path:
        """Images of this model, by content hash."""
        return self.root / "images" / self.model

    @property
    def archive(self) -> Path:
        """Files of this model's inbox that were taken in."""
        return self.root / "archive" / self.model

    @property
    def reports(self) -> Path:
        """Evidently's reports of this model."""
        return self.root / "reports" / self.model

    @property
    def page(self) -> Path:
        """The page of this model; `index.html` in it."""
        return self.root / "page" / self.model

    @property
    def cache(self) -> Path:
        """Downloaded models, and what the scan worked out; may be deleted at any time."""
        return self.root / "cache" / self.model

    @property
    def mlflow(self) -> Path:
        """MLflow's database and artifacts, where no server is configured."""
        return self.root / "mlflow"

    @property
    def prefect(self) -> Path:
        """Prefect's home."""
        return self.root / "prefect"

    @property
    def logs(self) -> Path:
        """Logs of the processes that `softad up` starts."""
        return self.root / "logs"

    @property
    def runtime(self) -> Path:
        """What is running now: process ids, addresses, locks."""
        return self.root / "run"

    @contextlib.contextmanager
    def lock(self, name: str, *, wait: bool = True) -> Iterator[None]:
        """Hold this model's lock `name` (for example "cycle" or "retrain"); freed when the process dies.

        Raises
        ------
        Refused: another process holds it and `wait` is false.
        """
        self.runtime.mkdir(parents=True, exist_ok=True)
        path = self.runtime / f"{self.model}.{name}.lock"
        with (self.runtime / WHOLE).open("a") as whole, path.open("w") as handle:
            fcntl.flock(whole, fcntl.LOCK_SH)  # a backup takes a minute, and lets nothing begin meanwhile
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise Refused(f"another {name} of {self.model} is running; wait until it has ended") from error
            yield


def format_of(root: Path) -> int:
    """The format that a workspace's marker says.

    Raises
    ------
    BadConfig: the marker cannot be read.
    """
    marker = root / "workspace.json"
    try:
        found = json.loads(marker.read_text())["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadConfig(f"{marker}: the workspace's version cannot be read; restore it from a backup") from error
    if not isinstance(found, int):
        raise BadConfig(f"{root}: this workspace has format {found!r}, made by a newer version; install that version")
    return found


def check_format(root: Path) -> int:
    """The format of a workspace that this program can work with.

    Raises
    ------
    BadConfig: it was made by another version, or its marker cannot be read.
    """
    found = format_of(root)
    if found > FORMAT:
        raise BadConfig(
            f"{root}: this workspace has format {found}, made by a newer version; this program reads up to "
            f"format {FORMAT}; install the newer version, or name another folder with --workspace"
        )
    if found < FORMAT:
        raise BadConfig(
            f"{root}: this workspace has format {found}, made by an earlier version; `softad upgrade` brings it to "
            f"format {FORMAT}, after a backup"
        )
    return found


@contextlib.contextmanager
def exclusively(root: Path, what: str, *, wait: float) -> Iterator[None]:
    """Hold the whole workspace: nothing that takes a lock runs in it, and none begins.

    Parameters
    ----------
    what: is being done, for the sentence.
    wait: seconds to wait for what runs.

    Raises
    ------
    Refused: something still ran then.
    """
    (root / "run").mkdir(exist_ok=True)
    deadline = time.monotonic() + wait
    with (root / "run" / WHOLE).open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise Refused(
                        f"{root}: a cycle, a training or an ingest still runs after {wait:.0f} s, and {what} needs the "
                        "workspace at rest; try again later, or with a longer --wait"
                    ) from error
            time.sleep(0.2)
        yield


def shortened(name: str, most: int) -> str:
    """The beginning of a file's name in at most so many bytes of UTF-8, no letter cut in two.

    >>> shortened("parts.csv", 60), shortened("検査結果", 7)
    ('parts.csv', '検査')
    """
    return name.encode("utf-8", "surrogateescape")[:most].decode("utf-8", "ignore")


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    # Whatever fits as the name must fit as the part's name too, which a file system counts in bytes.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{shortened(path.name, 60)}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


@contextlib.contextmanager
def new_folder(beside: Path) -> Iterator[Path]:
    """An empty folder in `beside`, for what is moved to its place when it is whole; gone afterwards."""
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside, prefix=".new-") as name:
        yield Path(name)
