"""A full disk, or a damaged table, as each of our libraries reports it, in one sentence."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from flows.errors import Damaged, PipelineError, Unavailable

CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""What the system says where this user may not write."""


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn a full disk or a damaged table, as any of our libraries reports it, into one sentence.

    Parameters
    ----------
    what: is being read or written, such as "table labels".

    Raises
    ------
    Unavailable: the disk is full, the quota is used up, or the folder may not be written; the object store does not
        answer, or refuses the keys.
    Damaged: a file of a table is torn, changed or gone. All other errors pass through.
    """
    try:
        yield
    except PipelineError:
        raise  # has its sentence already
    except Exception as error:
        if is_disk_full(error):
            raise Unavailable(
                f"{what}: the disk is full, so the work is not finished; free some space and run the same command "
                f"again (nothing is taken in twice)"
            ) from error
        if (place := not_allowed(error)) is not None:
            raise Unavailable(
                f"{what}: no permission to write{place}; see who owns the workspace's folders, then run the same "
                "command again (nothing is taken in twice)"
            ) from error
        refused = store_refuses(error)
        if refused is not None:
            raise Unavailable(
                f"{what}: {refused}; then run the same command again (nothing is taken in twice)"
            ) from error
        damage = damage_of(error)
        if damage is not None:
            raise damaged(damage.get("table") or what, damage["fault"]) from error
        raise


def damaged(what: str, fault: str) -> Damaged:
    """The error about a table that is damaged, with what to do.

    >>> str(damaged("table labels", "a file of its log is gone")).partition(";")[0]
    'table labels is damaged: a file of its log is gone'
    """
    return Damaged(
        f"{what} is damaged: {fault}; keep a copy of its folder as it is, then bring a backup back with "
        "`softad restore FILE`; `softad doctor` says whether all else is whole"
    )


def not_allowed(error: BaseException) -> str | None:
    """Where a table library was not allowed to write on this machine, as " at PATH" or ""; None: another error.

    >>> not_allowed(ValueError("no magic bytes")) is None
    True
    """
    if type(error).__module__ not in {"_internal", "deltalake.exceptions"}:
        return None
    text = str(error)
    if not re.search(r"\(os error (1|13|30)\)|code: (1|13|30),", text):
        return None
    place = re.search(
        r"(?:file|directory):? (/[^\n]*?)(?:/[^/\n]*\.parquet[#\d]*|/[\d]+\.json[#\d]*)?(?:: |\n|$)", text
    )
    return f" at {place.group(1)}" if place else ""


def store_refuses(error: BaseException) -> str | None:
    """What an object store says of keys or of itself, in our words; None where the error is another one.

    >>> store_refuses(ValueError("no magic bytes")) is None
    True
    >>> store_refuses(OSError("Generic S3 error: Error performing GET: Connection refused"))
    'the object store does not answer; see that it runs and that storage.endpoint is its address'
    """
    text = str(error)
    if not re.search(r"Generic S3 error|permission|privileges|PermissionDenied|NoSuchBucket", text):
        return None
    if "NoSuchBucket" in text:
        return "the object store has no such bucket; make it, or mend storage.tables"
    refusal = r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|MissingAuth|\b40[13]\b|credential|privileges"
    if re.search(refusal, text):
        return (
            "the object store refuses the keys; see that the secrets aws_access_key_id and aws_secret_access_key are "
            "those of a user who may read and write"
        )
    if "Generic S3 error" in text:
        return "the object store does not answer; see that it runs and that storage.endpoint is its address"
    return None


def damage_of(error: BaseException) -> dict[str, str] | None:
    """What a table library says of a file that it cannot read: `fault` in words, and the `table` where it is named.

    None where the error is another one.

    >>> damage_of(ValueError("no magic bytes")) is None
    True
    """
    if type(error).__module__ not in {"_internal", "_duckdb", "deltalake.exceptions"}:
        return None
    text = str(error)
    file = re.search(r"([\w.-]+)/([\w%=.-]+\.parquet)", text)
    named = {"table": f"table {file.group(1)}"} if file else {}
    name = file.group(2) if file else "one of its files"
    if re.search(r"No files found that match|No such file|not found", text, re.IGNORECASE):
        return {**named, "fault": f"{name} is gone"} if file else None
    if re.search(
        r"magic bytes|[Cc]orrupt|TProtocolException|Snappy|ZSTD|[Pp]arquet (error|file)|don't know what type", text
    ):
        return {**named, "fault": f"{name} is torn or was changed"}
    if re.search(r"contiguous commit files", text):
        return {**named, "fault": "a file of its log is gone"}
    if re.search(r"Json error|EOF while parsing|expected value|[Cc]heckpoint", text):
        return {**named, "fault": "its log holds a line that cannot be read"}
    return None


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that nothing more fits on the disk.

    >>> is_disk_full(OSError(28, "No space left on device")), is_disk_full(OSError(2, "No such file"))
    (True, False)
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            return True
        if re.search(
            r"No space left on device|Disk quota exceeded|database or disk is full|os error (28|122|27)\b", str(seen)
        ):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
