"""Terminal servers behind one face and one kind of gateway, so that they are measured alike, by the same client."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx

from libs.cli.stack.gateway import gateway_process, local_config
from libs.cli.stack.paths import StackPaths
from services.terminal.protocol import BINARY_SUBPROTOCOL
from tests.bench.wire import BINARY, TEXT, RawSocket
from tests.support.servers import free_port, wait_for_port

# A Python package that carries ttyd's own release for Linux.
_TTYD_PACKAGE = "tmuxd"
_TTYD_FILE = f"data/ttyd/ttyd.{os.uname().machine}"
_TERMINADO = """
import sys, tornado.ioloop, tornado.web
from terminado import TermSocket, UniqueTermManager
manager = UniqueTermManager(shell_command=["bash", "--norc"])
app = tornado.web.Application([(sys.argv[2], TermSocket, {"term_manager": manager})])
app.listen(int(sys.argv[1]), "127.0.0.1")
tornado.ioloop.IOLoop.current().start()
"""
# Where the gateway passes WebSockets on.
_PREFIX = "/api/v1/ws"


class Terminal(Protocol):
    """One open shell. Raises WireError, OSError."""

    def send(self, data: bytes) -> None:
        """Type."""
        ...

    def receive(self, timeout_s: float) -> bytes | bytearray:
        """The next output; control frames give nothing. Raises TimeoutError."""
        ...

    def close(self) -> None:
        """Leave."""
        ...

    def fileno(self) -> int:
        """For selectors."""
        ...

    @property
    def has_more(self) -> bool:
        """Whether output was read that `receive` has not given yet."""
        ...


class SocketTerminal:
    """What all have in common."""

    def __init__(self, socket: RawSocket) -> None:
        self._socket = socket
        self.close = socket.close
        self.fileno = socket.fileno

    @property
    def has_more(self) -> bool:
        """See Terminal."""
        return self._socket.has_more


class DevPocketTerminal(SocketTerminal):
    """Ours, binary sub-protocol."""

    def send(self, data: bytes) -> None:
        """A binary frame."""
        self._socket.send(data)

    def receive(self, timeout_s: float) -> bytes | bytearray:
        """Binary frames are output."""
        opcode, payload = self._socket.receive(timeout_s)
        return payload if opcode == BINARY else b""


class TtydTerminal(SocketTerminal):
    """ttyd: the first byte of a frame says what it is; 0 is input and output."""

    def __init__(self, socket: RawSocket) -> None:
        super().__init__(socket)
        socket.send(json.dumps({"AuthToken": "", "columns": 80, "rows": 24}).encode())

    def send(self, data: bytes) -> None:
        """Input."""
        self._socket.send(b"0" + data)

    def receive(self, timeout_s: float) -> bytes | bytearray:
        """Output."""
        _, payload = self._socket.receive(timeout_s)
        if payload[:1] != b"0":
            return b""
        del payload[:1]
        return payload


class TerminadoTerminal(SocketTerminal):
    """terminado: JSON lists."""

    def send(self, data: bytes) -> None:
        """Input."""
        self._socket.send(json.dumps(["stdin", data.decode()]).encode(), TEXT)

    def receive(self, timeout_s: float) -> bytes | bytearray:
        """Output."""
        kind, *rest = json.loads(self._socket.receive(timeout_s)[1])
        return str(rest[0]).encode() if kind == "stdout" else b""


@dataclass(frozen=True, slots=True)
class Server:
    """A terminal server that runs. `open` starts a shell and connects to it."""

    name: str
    open: Callable[[], Terminal]


@contextmanager
def devpocket(url: str, environment_id: str, token: str) -> Iterator[Server]:
    """Ours: a stack's own gateway, a running environment."""
    body = {"environment_id": environment_id, "kind": "terminal"}
    address = f"{url.replace('http', 'ws', 1)}{_PREFIX}/terminal/{environment_id}"
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}) as http:

        def open_shell() -> Terminal:
            ticket = http.post("/api/v1/ws/tickets", json=body).raise_for_status().json()["ticket"]
            return DevPocketTerminal(RawSocket(f"{address}?ticket={ticket}", BINARY_SUBPROTOCOL))

        yield Server("devpocket", open_shell)


@contextmanager
def ttyd(folder: Path) -> Iterator[Server | None]:
    """TTYD, an installed ttyd, or that of the package; None without any."""
    program = os.environ.get("TTYD") or shutil.which("ttyd") or _packaged_ttyd(folder)
    if program is None:
        yield None
        return
    port = free_port()
    argv = [program, "-i", "127.0.0.1", "-p", str(port), "-b", _PREFIX, "-W", "bash", "--norc"]
    with _process(argv, port), _gateway(folder / "ttyd", port) as url:
        yield Server("ttyd", lambda: TtydTerminal(RawSocket(f"{url}{_PREFIX}/ws", "tty")))


@contextmanager
def terminado(folder: Path) -> Iterator[Server | None]:
    """In a process of its own; None when it is not installed."""
    if importlib.util.find_spec("terminado") is None:
        yield None
        return
    port = free_port()
    path = f"{_PREFIX}/terminado"
    with (
        _process([sys.executable, "-c", _TERMINADO, str(port), path], port),
        _gateway(folder / "terminado", port) as url,
    ):
        yield Server("terminado", lambda: TerminadoTerminal(RawSocket(f"{url}{path}")))


def _packaged_ttyd(folder: Path) -> str | None:
    package = importlib.util.find_spec(_TTYD_PACKAGE)
    packaged = Path(package.origin).parent / _TTYD_FILE if package is not None and package.origin else None
    if packaged is None or not packaged.exists():
        return None
    # Wheels do not say that it may be run.
    program = folder / "ttyd.program"
    shutil.copyfile(packaged, program)
    program.chmod(0o700)
    return str(program)


@contextmanager
def _gateway(folder: Path, upstream: int) -> Iterator[str]:
    """The gateway of our stack, from the same template, in front of another server."""
    paths = StackPaths(folder)
    paths.create()
    port = free_port()
    address = [f"127.0.0.1:{upstream}"]
    config = local_config(paths, port, dict.fromkeys(("auth", "envs", "orchestrator", "terminal"), address), (0, 0))
    with _process(list(gateway_process(config, paths, port).argv), port):
        yield f"ws://127.0.0.1:{port}"


@contextmanager
def _process(argv: list[str], port: int) -> Iterator[None]:
    quiet = subprocess.DEVNULL
    with subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet) as process:
        try:
            wait_for_port(port, process)
            yield
        finally:
            process.terminate()
