"""What the contract tests need of a driver, whichever it is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from libs.runtime.port import (
    ExecRuntime,
    ExecStream,
    LogLine,
    ObservedWorkspace,
    WorkspaceLimits,
    WorkspaceRef,
    WorkspaceRuntime,
    WorkspaceSpec,
)

MIB = 1 << 20
_IS_REAL = bool(os.environ.get("TEST_KUBECONFIG")) or os.environ.get("TEST_BACKEND") == "containers"
# Here, because this module also runs where nothing but the standard library is installed.
IMAGE = os.environ.get("TEST_KUBERNETES_IMAGE", "devpocket/ubuntu:latest") if _IS_REAL else "python:3.12"
"""What every workspace of the contract asks for."""


def new_mark() -> str:
    """How long a `sleep` lasts that no other test has started: without a sandbox, all see the machine's processes."""
    return str(10**9 + secrets.randbelow(10**9))


class Driver(WorkspaceRuntime, ExecRuntime, Protocol):
    """Both halves in one object, for the tests' convenience."""


def make_spec(
    name: str = "contract",
    *,
    generation: int = 1,
    ref: WorkspaceRef | None = None,
    variables: Mapping[str, str] | None = None,
    startup_command: str | None = None,
    memory_bytes: int = 256 * MIB,
) -> WorkspaceSpec:
    """A small workspace of the contract's image with an id of its own."""
    return WorkspaceSpec(
        ref=ref or WorkspaceRef(environment_id=f"env-{uuid.uuid4().hex}", user_id="user-1"),
        generation=generation,
        name=name,
        image=IMAGE,
        limits=WorkspaceLimits(cpu_millis=1000, memory_bytes=memory_bytes, storage_bytes=1024 * MIB),
        variables=variables or {},
        startup_command=startup_command,
    )


@dataclass
class Workspaces:
    """Makes workspaces of one driver and removes them in the end."""

    runtime: Driver
    specs: list[WorkspaceSpec] = field(default_factory=list)

    async def start(self, spec: WorkspaceSpec | None = None) -> WorkspaceRef:
        """A running workspace."""
        spec = spec or make_spec()
        self.specs.append(spec)
        await self.runtime.ensure(spec)
        return spec.ref

    async def run(
        self,
        ref: WorkspaceRef,
        command: str | Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes, bytes]:
        """Run a shell command (or argv) without a terminal to its end: code, stdout, stderr."""
        argv = ["sh", "-c", command] if isinstance(command, str) else command
        async with opened(await self.runtime.exec(ref, argv, tty=False, env=env)) as stream:
            if stdin:
                await stream.write(stdin)
            await stream.write_eof()
            out, err = await asyncio.gather(read_all(stream), read_all_errors(stream))
            return await stream.wait(), out, err

    async def remove_all(self) -> None:
        """Delete everything that was started."""
        for ref in {spec.ref for spec in self.specs}:
            await self.runtime.delete(ref)


@contextlib.asynccontextmanager
async def opened(stream: ExecStream) -> AsyncIterator[ExecStream]:
    """A stream that is closed whatever happens."""
    try:
        yield stream
    finally:
        await stream.close()


async def read_all(stream: ExecStream) -> bytes:
    """Standard output to its end."""
    parts = []
    while part := await stream.read():
        parts.append(part)
    return b"".join(parts)


async def read_all_errors(stream: ExecStream) -> bytes:
    """Standard error to its end."""
    parts = []
    while part := await stream.read_stderr():
        parts.append(part)
    return b"".join(parts)


async def read_until(stream: ExecStream, wanted: bytes, *, seconds: float = 30.0) -> bytes:
    """Output up to and including `wanted`; fails when it does not come."""
    seen = b""
    async with asyncio.timeout(seconds):
        while wanted not in seen:
            part = await stream.read()
            assert part, f"the stream ended before {wanted!r}; it said {seen!r}"
            seen += part
    return seen


async def shell(runtime: Driver, ref: WorkspaceRef) -> ExecStream:
    """A terminal whose prompt is `READY>` and which does not echo what is typed."""
    stream = await runtime.exec(ref, ["sh"], env={"PS1": "FIRST> ", "ENV": ""})
    await read_until(stream, b"FIRST> ")
    # Quoted in two parts: the echo of this line is no prompt.
    await stream.write(b"stty -echo; PS1='REA''DY>'\n")
    await read_until(stream, b"READY>")
    return stream


async def until_watching(runtime: Driver) -> None:
    """Until a watch of the local driver tells what changes; that of a cluster also tells what was there before."""
    watchers = getattr(runtime, "_watchers", None)
    async with asyncio.timeout(30):
        while watchers is not None and not any(watcher.has_begun for watcher in watchers):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def next_change(changes: AsyncIterator[ObservedWorkspace], ref: WorkspaceRef) -> ObservedWorkspace:
    """The next news of one workspace."""
    async for observed in changes:
        if observed.ref == ref:
            return observed
    raise AssertionError("the watch ended")


async def collect_logs(lines: AsyncIterator[LogLine], until: str, *, seconds: float = 30.0) -> list[LogLine]:
    """Lines up to the first whose text is `until`."""
    found = []
    async with asyncio.timeout(seconds):
        async for line in lines:
            found.append(line)
            if line.message == until:
                return found
    raise AssertionError(f"the log ended before {until!r}; it said {[line.message for line in found]}")
