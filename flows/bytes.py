"""The bytes of a file: its hash, its compression, its encoding, and whether somebody still writes to it."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from flows.encodings import Evidence
from flows.errors import BadInput

BLOCK = 1 << 22
"""Bytes that are read at a time."""

HEAD = 1 << 18
"""Bytes at a file's start in which its header must end."""

_TAIL = 1 << 16


class HashingReader(io.RawIOBase):
    """A file opened for reading that hashes what is read.

    >>> import io
    >>> reader = HashingReader(io.BytesIO(b"abc"))
    >>> reader.read(2), reader.finish(), reader.sha()[:8]
    (b'ab', None, 'ba7816bf')
    """

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._sha = hashlib.sha256()

    def readable(self) -> bool:
        """Always true."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; all that is left when it is negative."""
        data = self._handle.read(size)
        self._sha.update(data)
        return data

    def readinto(self, buffer: object) -> int:
        """Fill a buffer; the number of bytes that came."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def finish(self) -> None:
        """Read what nobody asked for, so that the hash is of the whole file."""
        while self.read(BLOCK):
            pass

    def sha(self) -> str:
        """SHA-256 of what was read, in hex."""
        return self._sha.hexdigest()


@contextmanager
def open_hashing(path: Path) -> Iterator[HashingReader]:
    """Open a file to be read once from start to end, hashing it on the way."""
    with path.open("rb", buffering=0) as handle:
        yield HashingReader(handle)


class Transcoder(io.RawIOBase):
    """The content of a file as UTF-8 bytes, decompressed.

    Parameters
    ----------
    source: the file's bytes.
    encoding: "utf-8" (passed through) or another that Python knows.

    Attributes
    ----------
    tail: the last 64 KB that were read.
    """

    def __init__(self, source: io.RawIOBase, *, encoding: str, compressed: bool) -> None:
        self._source: io.RawIOBase | gzip.GzipFile = gzip.GzipFile(fileobj=source) if compressed else source
        self._decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)()
        self._left = b""
        self.tail = b""

    def readable(self) -> bool:
        """Always true."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; empty at the end only."""
        data = self._read(size)
        self.tail = data[-_TAIL:] if len(data) >= _TAIL else (self.tail + data)[-_TAIL:]
        return data

    def _read(self, size: int) -> bytes:
        if self._decoder is None:
            return self._source.read(size) or b""
        while not self._left:
            raw = self._source.read(size)
            if not raw:
                return self._decoder.decode(b"", final=True).encode()
            self._left = self._decoder.decode(raw).encode()
        end = len(self._left) if size < 0 else size
        given, self._left = self._left[:end], self._left[end:]
        return given


def check_there(path: Path) -> None:
    """Refuse a path at which no file is.

    Raises
    ------
    BadInput: no file is at the path; the sentence says what is.

    >>> check_there(Path(__file__))
    >>> check_there(Path("/"))
    Traceback (most recent call last):
    flows.errors.BadInput: / is a folder, no file; name the file in it
    """
    if path.is_dir():
        raise BadInput(f"{path} is a folder, no file; name the file in it")
    if path.exists() and not path.is_file():
        raise BadInput(f"{path} is no regular file; write what comes from it to a file, and name that")
    if not path.exists():
        raise BadInput(f"{path}: there is no such file; check the path")


def file_sha(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open_hashing(path) as source:
        source.finish()
        return source.sha()


@dataclass(frozen=True)
class TextFacts:
    """What one look through a text file tells.

    Attributes
    ----------
    encoding: "utf-8", or "cp932" where the text is plausibly Japanese.
    most_rows: it has no more data rows than this (line ends inside cells and blank lines count too).
    """

    sha: str
    encoding: str
    most_rows: int


def check_text(path: Path, *, compressed: bool) -> TextFacts:
    """Hash and encoding of a text file, and a bound on its rows.

    Raises
    ------
    BadInput: a truncated or damaged gzip, binary content, or bytes in neither encoding.
    """
    decoder: codecs.IncrementalDecoder | None = codecs.getincrementaldecoder("utf-8")()
    pending, offset, line_ends, last = False, 0, 0, b""
    with open_hashing(path) as source:
        for block in _blocks(path, source, compressed=compressed):
            zero = block.find(b"\0")
            if zero >= 0:
                raise BadInput(
                    f"{path.name}, byte {offset + zero + 1}: this is binary data, no text, whatever its name says; "
                    f"export the table as CSV or Parquet"
                )
            # Nearly all blocks are ASCII, and asking for that is ten times as fast as decoding.
            if decoder is not None and (pending or not block.isascii()):
                try:
                    decoder.decode(block)
                    pending = bool(decoder.getstate()[0])
                except UnicodeDecodeError:
                    decoder = None
            offset += len(block)
            line_ends += block.count(b"\n") + block.count(b"\r")
            last = block[-1:]
        source.finish()
        sha = source.sha()
    # The header has a line end too; the last row may have none.
    most_rows = line_ends - (last in {b"\n", b"\r"})
    if decoder is not None and not pending:
        return TextFacts(sha, "utf-8", most_rows)
    _check_cp932(path, compressed=compressed)
    return TextFacts(sha, "cp932", most_rows)


def decoded_head(path: Path, *, encoding: str, compressed: bool, size: int = HEAD) -> str:
    """The first lines of a text file, without a byte order mark."""
    with open_hashing(path) as source:
        stream = Transcoder(source, encoding=encoding, compressed=compressed)
        head = b""
        while len(head) < size and (data := stream.read(size - len(head))):
            head += data
    return head.decode("utf-8-sig", errors="ignore")


def _blocks(path: Path, source: HashingReader, *, compressed: bool) -> Iterator[bytes]:
    stream = Transcoder(source, encoding="utf-8", compressed=compressed)
    try:
        while block := stream.read(BLOCK):
            yield block
    except EOFError as error:
        raise BadInput(f"{path.name}: the gzip file ends in its middle, so rows are missing; copy it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{path.name}: the gzip file is damaged ({error}); copy it again") from error


def _check_cp932(path: Path, *, compressed: bool) -> None:
    evidence = Evidence()
    with open_hashing(path) as source:
        for block in _blocks(path, source, compressed=compressed):
            evidence.take(block)
    found = evidence.verdict()
    if found == "euc-jp":
        raise BadInput(f"{path.name}: the file is in EUC-JP; save it as UTF-8 (or CP932) and try again")
    if found == "neither":
        raise BadInput(_encoding_sentence(path, compressed=compressed))


def _encoding_sentence(path: Path, *, compressed: bool) -> str:
    """Where the first byte stands that is no UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, in_line = 1, 0
    with open_hashing(path) as source:
        for block in _blocks(path, source, compressed=compressed):
            held = len(decoder.getstate()[0])
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                # Positions in the error count from the bytes that the decoder held back.
                bad = error.object[error.start]
                before = block[: max(error.start - held, 0)]
                line += before.count(b"\n")
                start = before.rfind(b"\n")
                column = (in_line + error.start - held if start < 0 else len(before) - start - 1) + 1
                return _bad_byte(path, line, column, bad)
            line += block.count(b"\n")
            start = block.rfind(b"\n")
            in_line = in_line + len(block) if start < 0 else len(block) - start - 1
    held_bytes = decoder.getstate()[0]
    return _bad_byte(path, line, in_line - len(held_bytes) + 1, held_bytes[0])


def _bad_byte(path: Path, line: int, column: int, byte: int) -> str:
    return (
        f"{path.name}, line {line}, byte {column}: 0x{byte:02x} is neither UTF-8 nor Japanese CP932 text; "
        f"save the file as UTF-8 and try again"
    )


class StillWritten(BadInput):
    """Another program has not finished the file yet."""


def check_settled(path: Path, settle_seconds: float) -> None:
    """Refuse a file that is still being written; waits at most `settle_seconds` to see.

    Raises
    ------
    StillWritten: another program holds the file open for writing, or it grew while we waited.
    """
    before = path.stat()
    age = time.time() - before.st_mtime
    if age < settle_seconds:
        time.sleep(min(settle_seconds, settle_seconds - max(age, 0.0)))
        after = path.stat()
        moved = (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
    else:
        moved = False
    if moved or is_open_for_writing(path):
        raise StillWritten(
            f"{path.name} is still being written by another program; wait until it is closed and try again (an export "
            f"that writes to NAME.part and renames it at the end is never read too early)"
        )


def is_open_for_writing(path: Path) -> bool:
    """Whether a process that we may look at holds the file open for writing; always false where there is no /proc.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as handle:
    ...     is_open_for_writing(Path(handle.name))
    True
    """
    target = path.resolve()
    for process in _listing(Path("/proc")):
        if not process.name.isdigit():
            continue
        for descriptor in _listing(process / "fd"):
            try:
                if descriptor.readlink() != target:
                    continue
                info = (process / "fdinfo" / descriptor.name).read_text()
            except OSError:
                continue  # closed, or the process ended, while we looked
            flags = next((line.split()[1] for line in info.splitlines() if line.startswith("flags:")), "0")
            if int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
                return True
    return False


def _listing(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []  # no /proc on this system, another user's process, or one that has just ended
