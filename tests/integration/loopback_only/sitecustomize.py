"""Refuses and records every connection that Python code would make to another machine.

Put this folder first on PYTHONPATH and name a file with SOFTAD_TEST_CONNECTS: every Python process started then
notes itself there ("guarded PID COMMAND") and each refusal ("tried PID FUNCTION WHERE"). Imported without that
variable it does nothing. What libraries in C or Rust do themselves is seen by guard.c only.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys

VARIABLE = "SOFTAD_TEST_CONNECTS"
_STATE = {"path": "", "hooked": False}
_NAMED = {"socket.getaddrinfo", "socket.gethostbyname"}
_ADDRESSED = {"socket.connect", "socket.sendto", "socket.sendmsg"}


def install(path: str) -> None:
    """Refuse and record from now on, until `release`."""
    _STATE["path"] = path
    if not _STATE["hooked"]:  # a hook cannot be taken off again
        sys.addaudithook(_hook)
        _STATE["hooked"] = True
    if "guard" not in os.environ.get("LD_PRELOAD", ""):
        # Its loop connects in C, unseen from here; without it the servers use Python's own.
        sys.modules["uvloop"] = None  # type: ignore[assignment]
    _write(f"guarded {os.getpid()} {' '.join(sys.orig_argv[1:])}")


def release() -> None:
    """Refuse nothing any more."""
    _STATE["path"] = ""
    if sys.modules.get("uvloop", 0) is None:
        del sys.modules["uvloop"]


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if not _STATE["path"] or (event not in _NAMED and event not in _ADDRESSED):
        return
    if event in _NAMED:
        name = arguments[0]
        where = name.decode() if isinstance(name, bytes) else name
    else:
        address = arguments[1]
        if not isinstance(address, tuple):
            return  # a socket within the machine
        where = address[0]
    if not _leaves(where):
        return
    _write(f"tried {os.getpid()} {event} {where}")
    error = socket.gaierror(socket.EAI_FAIL, "refused by the test") if event in _NAMED else OSError(101, "refused")
    raise error


def _leaves(where: object) -> bool:
    """Whether a host given by name or number is another machine.

    >>> [_leaves(host) for host in ("127.0.0.1", "localhost", "::1", "", None, "0.0.0.0")]
    [False, False, False, False, False, False]
    >>> [_leaves(host) for host in ("192.0.2.1", "api.example.com", "2001:db8::1")]
    [True, True, True]
    """
    if not where or where == "localhost":
        return False
    try:
        address = ipaddress.ip_address(str(where).partition("%")[0])
    except ValueError:
        return True
    return not (address.is_loopback or address.is_unspecified)


def _write(line: str) -> None:
    descriptor = os.open(_STATE["path"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, (line + "\n").encode(errors="replace"))
    finally:
        os.close(descriptor)


if os.environ.get(VARIABLE):
    install(os.environ[VARIABLE])
