"""`python -m libs.runtime.local.keeper ROOT`, with the listening socket as standard input."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from libs.runtime.local.keeper.daemon import Keeper
from libs.runtime.local.layout import Layout


def main() -> None:
    """Go into the background and keep shells until there are none."""
    listener = socket.socket(fileno=os.dup(0))
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.chdir("/")
    Keeper(Layout(Path(sys.argv[1])), listener).run()


if __name__ == "__main__":
    main()
