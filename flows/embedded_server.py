"""The process of `flows.embedded.EmbeddedServer`: Prefect's API until the process that wants it ends.

    python -P embedded_server.py SOCKET PARENT

It imports nothing of ours: what it needs stands in its environment.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time

STOP_SECONDS = 10


def end_with(parent: int) -> None:
    """End this process soon after `parent` has ended, also where that was killed and could not ask for it."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)


def main(handle: int, parent: int) -> None:
    """Serve on the socket that was handed over."""
    import uvicorn

    threading.Thread(target=end_with, args=(parent,), daemon=True, name="parent").start()
    config = uvicorn.Config("prefect.server.api.server:create_app", factory=True, log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=handle)])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
