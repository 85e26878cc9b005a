"""A full disk, as each of our libraries reports it, in one sentence."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from flows.errors import PipelineError, Unavailable


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn a full disk, as any of our libraries reports it, into one sentence.

    Raises
    ------
    Unavailable: the disk is full or the quota is used up. All other errors pass through.
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
        raise


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that nothing more fits on the disk.

    >>> is_disk_full(OSError(28, "No space left on device")), is_disk_full(OSError(2, "No such file"))
    (True, False)
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            return True
        if re.search(r"No space left on device|Disk quota exceeded|os error (28|122|27)\b", str(seen)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
