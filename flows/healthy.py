"""Whether a server answers, as an exit status: the health check of a container."""

from __future__ import annotations

import sys

from flows.services import answers

if __name__ == "__main__":
    sys.exit(0 if answers(sys.argv[1]) else 1)
