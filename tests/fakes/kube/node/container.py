"""One run of a container: PID 1 and everything beside it, until it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.fakes.kube.node import processes, sandbox
from tests.fakes.kube.node.logs import ContainerLog, collect
from tests.fakes.kube.node.processes import ExecProcess
from tests.fakes.kube.node.sandbox import World
from tests.fakes.kube.store import now

_MARK = "FAKE_KUBE_CONTAINER"
_START_S, _LOOK_S = 60.0, 0.001
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CannotStartError(Exception):
    """The container's own program does not exist."""


class Container:
    """A real process tree. `reason` overrides the words of its end (OOMKilled)."""

    def __init__(self, world: World) -> None:
        self.id = uuid.uuid4().hex
        self.world = world
        self.log = ContainerLog()
        self.started_at = now()
        self.finished_at: str | None = None
        self.exit_code: int | None = None
        self.reason: str | None = None
        self.message: str | None = None
        self.ended = asyncio.Event()
        self._pid = 0
        self._sample = (time.monotonic(), 0.0)
        self._execs: set[ExecProcess] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self._env = {"PATH": _PATH, "HOSTNAME": world.hostname, **world.env}

    async def start(self) -> None:
        """Start PID 1. Raises CannotStartError."""
        program = self.world.argv[0]
        if sandbox.is_missing(self.world, program, self._env["PATH"]):
            raise CannotStartError(f'exec: "{program}": executable file not found in $PATH')
        bwrap = sandbox.bubblewrap()
        if bwrap is None:
            await self._start_plain()
            return
        read, write = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *sandbox.start_arguments(bwrap, self.world, write),
                env=self._env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=[write],
                start_new_session=True,
            )
        finally:
            os.close(write)
        self._pid = await _child_pid(read)
        self._follow(process)
        if self._pid == 0:
            await self.ended.wait()
            raise CannotStartError("bubblewrap could not make the container")
        await self._until_it_is_itself(bwrap)

    def fail(self, message: str) -> None:
        """It never ran: what the kubelet says of a container whose program cannot be started."""
        self.reason, self.message, self.exit_code = "StartError", message, 128
        self.finished_at = now()
        self.log.close()
        self.ended.set()

    def signal(self, number: int) -> None:
        """Send a signal to PID 1 alone, as a runtime does."""
        if self.exit_code is None and self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def kill(self) -> None:
        """End everything now."""
        self.signal(signal.SIGKILL)
        if sandbox.bubblewrap() is None:
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()

    async def exec(self, argv: Sequence[str], *, tty: bool, stdin: bool, wanted: Sequence[int]) -> ExecProcess | str:
        """Start a process in the container; a sentence when there is no such program."""
        if self._missing(argv[0]):
            if "/" in argv[0]:
                return f'exec: "{argv[0]}": stat {argv[0]}: no such file or directory'
            return f'exec: "{argv[0]}": executable file not found in $PATH'
        owner = (self.world.uid, self.world.gid)
        if sandbox.bubblewrap() is None:
            command = [*(["setsid", "--ctty"] if tty else []), *map(self.world.on_host, argv)]
            env = self._env | {_MARK: self.id}
            return await processes.start(
                command, env, None, owner, tty=tty, stdin=stdin, wanted=wanted, cwd=self.world.cwd
            )
        command = sandbox.enter_arguments(self.world, self._pid, argv, tty=tty)
        return await processes.start(command, self._env, self._root(), owner, tty=tty, stdin=stdin, wanted=wanted)

    async def dial(self, argv: Sequence[str]) -> asyncio.subprocess.Process:
        """A program of the node's in this container's network, with pipes."""
        pipe = asyncio.subprocess.PIPE
        command = [*sandbox.dial_arguments(self._pid), *argv]
        return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)

    def keep(self, process: ExecProcess, work: asyncio.Task[object]) -> None:
        """Tie an exec's life to the container's."""
        self._execs.add(process)
        self._tasks.add(work)
        work.add_done_callback(self._tasks.discard)
        work.add_done_callback(lambda _: self._execs.discard(process))

    def cpu_rate(self, seconds: float) -> float:
        """Cores in use since the call before, given the CPU seconds so far."""
        moment = time.monotonic()
        before, self._sample = self._sample, (moment, seconds)
        elapsed = moment - before[0]
        return max(0.0, seconds - before[1]) / elapsed if elapsed > 0 else 0.0

    def processes(self) -> list[psutil.Process]:
        """All processes of the container, as the host sees them."""
        if self._pid == 0:
            return []
        if sandbox.bubblewrap() is not None:
            return _of_namespace(self._pid)
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_MARK) == self.id:
                    found.append(process)
        return found

    async def drain(self) -> None:
        """Wait until everything that belonged to it is over."""
        await self.ended.wait()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=10)
        for task in set(self._tasks):
            task.cancel()

    async def _start_plain(self) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *self.world.argv,
                env=self._env | {_MARK: self.id},
                cwd=self.world.cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise CannotStartError(f'exec: "{self.world.argv[0]}": {error.strerror}') from error
        self._pid = process.pid
        self._follow(process)

    def _follow(self, process: asyncio.subprocess.Process) -> None:
        task: asyncio.Task[object] = asyncio.create_task(self._until_end(process))
        self._watcher = task

    async def _until_end(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        copies = [
            asyncio.create_task(collect(process.stdout, "stdout", self.log)),
            asyncio.create_task(collect(process.stderr, "stderr", self.log)),
        ]
        code = await process.wait()
        await asyncio.wait(copies, timeout=1)
        for copy in copies:
            copy.cancel()
        if sandbox.bubblewrap() is None:
            for left in self.processes():
                with contextlib.suppress(psutil.Error):
                    left.kill()
        self.exit_code = 128 - code if code < 0 else code
        self.finished_at = now()
        self.log.close()
        self.ended.set()

    async def _until_it_is_itself(self, bwrap: str) -> None:
        """Only then it has its own root, its own user, and the image's signal handling."""
        on_the_way = (bwrap, sandbox.SETPRIV, sandbox.ENV)
        async with asyncio.timeout(_START_S):
            while not self.ended.is_set():
                words = _command_line(self._pid)
                if words and words[0] not in on_the_way and (not self.world.traps or _traps(self._pid)):
                    return
                await asyncio.sleep(_LOOK_S)

    def _missing(self, program: str) -> bool:
        path = self._env.get("PATH", _PATH)
        return not sandbox.find_program(self._root() or Path("/"), program, path, self.world.cwd)

    def _root(self) -> Path | None:
        return Path(f"/proc/{self._pid}/root") if sandbox.bubblewrap() is not None and self._pid else None


def _command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []


def _traps(pid: int) -> bool:
    """Whether the process handles SIGTERM yet. An init (tini, where this machine has it) passes it on to its child."""
    if any(Path(word).name == "tini" for word in _command_line(pid)[:1]):
        return any(_traps(child) for child in _children(pid))
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


async def _child_pid(read: int) -> int:
    """What bwrap says on its info descriptor; 0 when it ended without a word."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb"))
    try:
        text = await reader.read()
    finally:
        transport.close()
    return int(json.loads(text)["child-pid"]) if text else 0


def _of_namespace(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(OSError):
        wanted = os.readlink(f"/proc/{pid}/ns/pid")
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if os.readlink(f"/proc/{process.pid}/ns/pid") == wanted:
                    found.append(process)
        return found
    return []
