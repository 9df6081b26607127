"""The sandbox's way to the outside: slirp4netns on its network namespace."""

from __future__ import annotations

import os
import select

from libs.runtime.local.shim.spawn import spawn

TYPE_CHECKING = False  # importing typing would cost every start seven milliseconds
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_NS_GET_USERNS = 0xB701
_READY_MILLISECONDS = 3000


class Network:
    """Starts slirp4netns, says when it is up, and ends it with the sandbox.

    slirp4netns also ends by itself when this process goes: it watches a pipe (`--exit-fd`) that only we hold open.
    """

    def __init__(self, config: dict[str, Any], init_pid: int) -> None:
        self._config = config
        self._namespace = os.open(f"/proc/{init_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._owner = -1
        if config["user_namespace"]:
            import fcntl  # noqa: PLC0415

            self._owner = fcntl.ioctl(self._namespace, _NS_GET_USERNS)
        self._exit_read, self._exit_write = os.pipe2(os.O_CLOEXEC)
        self.pid = 0

    def start(self) -> str | None:
        """Bring the network up. Gives None, or a sentence about what does not work."""
        # First: from the moment there is a way out, these addresses are not on it.
        problem = self._close_addresses()
        hardened: list[str] = self._config["hardening"]
        for flags in (hardened, list[str]()):
            if self._try(flags):
                return problem
        return "slirp4netns did not come up, so this environment has no network."

    def _try(self, flags: Sequence[str]) -> bool:
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
        namespaces = [self._namespace] if self._owner < 0 else [self._namespace, self._owner]
        argv = [
            *self._config["argv"],
            *flags,
            f"--exit-fd={self._exit_read}",
            f"--ready-fd={ready_write}",
            "--netns-type=path",
            *([] if self._owner < 0 else [f"--userns-path=/proc/self/fd/{self._owner}"]),
            f"/proc/self/fd/{self._namespace}",
            "tap0",
        ]
        self.pid = spawn(
            argv, self._config["env"], {0: 0, 1: 0, 2: 0}, keep=[*namespaces, self._exit_read, ready_write]
        )
        os.close(ready_write)
        poll = select.poll()
        poll.register(ready_read, select.POLLIN)
        up = bool(poll.poll(_READY_MILLISECONDS)) and os.read(ready_read, 1) != b""
        os.close(ready_read)
        if not up:
            self._end()
        return up

    def _close_addresses(self) -> str | None:
        closed: list[str] = self._config["unreachable"]
        argv: list[str] = self._config["route"]
        if not argv:
            return (
                f"The program `ip` is missing, so these addresses are not closed to environments: {', '.join(closed)}."
            )
        namespaces = {"net": self._namespace} if self._owner < 0 else {"user": self._owner, "net": self._namespace}
        enter = [f"--{kind}=/proc/self/fd/{fd}" for kind, fd in namespaces.items()]
        keep = list(namespaces.values())
        for addresses in closed:
            command = [argv[0], *enter, *argv[1:], addresses]
            pid = spawn(command, self._config["env"], {0: 0, 1: 0, 2: 0}, keep=keep)
            _, status = os.waitpid(pid, 0)
            if os.waitstatus_to_exitcode(status):
                return f"The route to {addresses} could not be closed."
        return None

    def _end(self) -> None:
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        self.pid = 0

    def stop(self) -> None:
        """End slirp4netns."""
        if self.pid:
            self._end()
