"""The shim of one sandbox: starts it, keeps its log, records how it ended, cleans up after it.

Descriptors at start: 0 the configuration (marshal), 1 where to say `ready` or `error <why>`, 2 an error file,
3 the lock that tells others we live. The configuration is made by `libs.runtime.local.launcher`.
"""

# ruff: noqa: SIM105 - importing contextlib would cost every start two milliseconds
from __future__ import annotations

import marshal
import os
import time

from libs.runtime.local.shim.endings import MemoryWatch, explain, remove_cgroups
from libs.runtime.local.shim.logfile import LineSplitter, LogFile
from libs.runtime.local.shim.spawn import memory_file, spawn

TYPE_CHECKING = False  # importing typing would cost every start seven milliseconds
if TYPE_CHECKING:
    from typing import Any

_LIFE_LOCK = 3
_CONTROL = 3  # inside the sandbox: what the main process reports
_ORPHAN_CHECK_MILLISECONDS = 10_000
_GO = 4  # inside the sandbox: the startup command waits for this


class Shim:
    """Supervises one sandbox from start to end."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.log = LogFile(config["log"], config["log_bytes"])
        self.network: Any = None
        self.memory = MemoryWatch(config["oom"])
        self.init_pid = 0
        self.init_handle = -1

    def start(self) -> None:
        """Start bwrap (or the plain main process) and the log pipes; returns before it is ready."""
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        control_read, control_write = os.pipe2(os.O_CLOEXEC)
        go_read, self.go = os.pipe2(os.O_CLOEXEC)
        info_read, info_write = os.pipe2(os.O_CLOEXEC)
        argv: list[str] = list(self.config["argv"])
        keep: list[int] = []
        if self.config["sandbox_args"] is not None:
            keep, arguments = self._sandbox_arguments(info_write)
            argv[1:1] = ["--args", str(arguments)]
        self.child = spawn(
            argv,
            self.config["env"],
            {0: 0, 1: out_write, 2: err_write, _CONTROL: control_write, _GO: go_read},
            keep=keep,
            cgroups=self.config["cgroups"],
            rlimits=self.config["rlimits"],
            oom_score=self.config["oom_score"],
        )
        for fd in {out_write, err_write, control_write, go_read, info_write, *keep}:
            os.close(fd)
        self.errors = LineSplitter(self.log, "e")
        self.pipes = {out_read: LineSplitter(self.log, "o"), err_read: self.errors}
        for fd in self.pipes:
            os.set_blocking(fd, False)
        self.control, self.info = control_read, info_read

    def _sandbox_arguments(self, info: int) -> tuple[list[int], int]:
        arguments = [*self.config["sandbox_args"], "--info-fd", str(info)]
        keep = [info]
        for path, mode, data in self.config["files"]:
            keep.append(memory_file(data))
            arguments += ["--perms", mode, "--file", str(keep[-1]), path]
        keep.append(memory_file(b"".join(argument.encode() + b"\0" for argument in arguments)))
        return keep, keep[-1]

    def find_init(self) -> bool:
        """Learn the sandbox's init from bwrap; False when it ended before there was one."""
        import json  # noqa: PLC0415 - loads while bwrap works

        if self.config["sandbox_args"] is None:
            self.init_pid = self.child
        else:
            text = b""
            while part := os.read(self.info, 4096):
                text += part
            try:
                self.init_pid = int(json.loads(text)["child-pid"])
            except (ValueError, KeyError):
                return False
        try:
            self.init_handle = os.pidfd_open(self.init_pid)
            self.init_start = _start_time(self.init_pid)
        except (OSError, ValueError):
            return False
        return True

    def wait_ready(self) -> bool:
        """Block until the main process runs inside the finished sandbox; False when it ended instead."""
        import select  # noqa: PLC0415

        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        return bool(poll.poll(self.config["start_milliseconds"])) and os.read(self.control, 1) == b"r"

    def record_run(self) -> None:
        """Write run.json: from here on the workspace counts as running."""
        children = _children(self.init_pid)
        self._record(
            "run",
            self.config["run"]
            | {
                "shim_pid": os.getpid(),
                "init_pid": self.init_pid,
                "init_start": self.init_start,
                "main_pid": children[0] if children and self.config["sandbox_args"] is not None else self.init_pid,
                "started_at": time.time(),
            },
        )

    def _record(self, name: str, document: dict[str, Any]) -> None:
        import json  # noqa: PLC0415

        path = f"{self.config['state']}/{name}.json"
        fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.write(fd, json.dumps(document).encode())
        os.close(fd)
        os.replace(path + ".new", path)

    def connect(self) -> None:
        """Bring up the network where there is one, then let the startup command go."""
        # OSError: the sandbox ended meanwhile, which `serve` is about to see.
        try:
            if self.config["network"] is not None:
                from libs.runtime.local.shim.network import Network  # noqa: PLC0415

                self.network = Network(self.config["network"], self.init_pid)
                problem = self.network.start()
                if problem:
                    self.log.say(problem)
            os.write(self.go, b"\n")
        except OSError:
            pass
        os.close(self.go)

    def serve(self) -> int:
        """Carry output to the log until the main process ends; gives its exit code (128 + n for signal n)."""
        import select  # noqa: PLC0415

        handle = os.pidfd_open(self.child)
        poll = select.poll()
        for fd in (handle, self.control, *self.pipes):
            poll.register(fd, select.POLLIN)
        if self.memory.fd >= 0:
            poll.register(self.memory.fd, select.POLLPRI if self.memory.by_priority else select.POLLIN)
        while True:
            ready = poll.poll(self.memory.patience_milliseconds or _ORPHAN_CHECK_MILLISECONDS)
            if not ready and not os.path.isdir(self.config["state"]):
                # Somebody removed the runtime's directory: nobody can ever find and stop this sandbox.
                return _abandon(self)
            for fd, _ in ready:
                if fd == handle:
                    return _exit_code(self.child)
                if fd == self.memory.fd:
                    self.memory.hear()
                elif not self._carry(fd):
                    poll.unregister(fd)
            if self.memory.patience_milliseconds is not None:
                self._note_oom()

    def _carry(self, fd: int) -> bool:
        """Take what a pipe has; False at its end."""
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:  # drained since the poll
            return True
        if fd == self.control:
            self._hear(data)
        elif data:
            self.pipes[fd].feed(data)
        else:
            self.pipes[fd].flush()
        return bool(data)

    def _hear(self, data: bytes) -> None:
        # `s<code>` is the end of the startup command; `.` says that it began.
        for word in data.decode("ascii", "replace").replace(".", "").split():
            self._drain()
            self.log.say(f"The startup command ended with code {word.removeprefix('s')}.")

    def _drain(self) -> None:
        """Log what was written before now, a last line without its newline included."""
        for fd, splitter in self.pipes.items():
            try:
                while data := os.read(fd, 65536):
                    splitter.feed(data)
            except BlockingIOError:
                pass
            splitter.flush()

    def _note_oom(self) -> None:
        news = self.memory.news()
        if news is not None:
            self.log.say(news)

    def finish(self, code: int) -> None:
        """End whatever is left, write exit.json, give back what was taken from the machine."""
        import signal  # noqa: PLC0415

        if self.init_handle >= 0:
            try:
                signal.pidfd_send_signal(self.init_handle, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._drain()
        self._note_oom()
        reason, message = explain(code, self.memory.kills)
        try:
            self._record("exit", {"code": code, "reason": reason, "message": message, "at": time.time()})
        except OSError:  # a full disk, or the directory is gone: what is left must still be given back
            pass
        self.log.say("The environment was stopped." if _stopped(self.config) else message)
        if self.network is not None:
            self.network.stop()
        remove_cgroups(self.config["cgroups"])


def _stopped(config: dict[str, Any]) -> bool:
    return os.path.exists(f"{config['state']}/stop")


def _start_time(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        text = file.read()
    return int(text[text.rindex(b")") + 2 :].split()[19])


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def _read_all(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _answer(text: str) -> None:
    """Tell who started us; it may be gone, which changes nothing."""
    try:
        os.write(1, text.encode())
    except BrokenPipeError:
        pass


def main() -> None:
    """Run as `python -I -S -c "…; main()"` with the descriptors of the module's text."""
    if os.fork():
        os._exit(0)
    os.set_inheritable(_LIFE_LOCK, False)
    os.closerange(_LIFE_LOCK + 1, 1 << 20)
    shim = Shim(marshal.loads(_read_all(0)))  # noqa: S302 - from the service that started us
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    for notice in shim.config["notices"]:
        shim.log.say(notice)
    shim.start()
    if not (shim.find_init() and shim.wait_ready()):
        shim.finish(_abandon(shim))
        words = shim.errors.last.decode(errors="replace")
        _answer(f"error {words or 'the sandbox ended before it was ready'}")
        return
    shim.record_run()
    _answer("ready")
    os.dup2(null, 1)
    shim.connect()
    shim.finish(shim.serve())


def _abandon(shim: Shim) -> int:
    try:
        os.kill(shim.child, 9)
    except ProcessLookupError:
        pass
    return _exit_code(shim.child)


def _exit_code(pid: int) -> int:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code
