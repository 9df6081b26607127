"""The clock around a driver: what it hears of each call, and that nothing else changes."""

from __future__ import annotations

import asyncio

import pytest

from libs.runtime.holder.held import HoldTerms, ShellRuntime
from libs.runtime.port import (
    DriverError,
    ExecRuntime,
    PortClosedError,
    RuntimeUnavailableError,
    TerminalSize,
    WorkspaceLimits,
    WorkspaceNotRunningError,
    WorkspaceRef,
    WorkspaceRejectedError,
    WorkspaceRuntime,
    WorkspaceSpec,
)
from libs.runtime.timed import TimedExec, TimedWorkspaces
from tests.fakes.exec_runtime import HostExecRuntime
from tests.fakes.runtime import FakeRuntime

_REF = WorkspaceRef("env1", "user1")
_SPEC = WorkspaceSpec(_REF, 1, "box", "python", WorkspaceLimits(500, 1 << 30, 5 << 30))


class Heard(list[tuple[str, str]]):
    """An observer."""

    def __call__(self, operation: str, outcome: str, seconds: float) -> None:
        assert seconds >= 0
        self.append((operation, outcome))


class Failing(FakeRuntime):
    """Raises `error` instead of making anything."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    async def before_ensure(self, spec: WorkspaceSpec) -> None:
        raise self.error


async def test_each_call_is_heard_of_and_does_what_it_did() -> None:
    heard, driver = Heard(), FakeRuntime()
    timed = TimedWorkspaces(driver, heard)
    assert isinstance(timed, WorkspaceRuntime)
    await timed.open()
    assert await timed.ensure(_SPEC) == await driver.inspect(_REF)
    assert await timed.inspect(_REF) == await driver.inspect(_REF)
    assert list(await timed.list()) == list(await driver.list())
    await timed.check()
    await timed.stats(_REF)
    await timed.stop(_REF)
    await timed.delete(_REF)
    await timed.close()
    operations = ["open", "ensure", "inspect", "list", "check", "stats", "stop", "delete"]
    assert heard == [(operation, "ok") for operation in operations]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RuntimeUnavailableError("away"), "unavailable"),
        (WorkspaceRejectedError("no"), "rejected"),
        (WorkspaceNotRunningError("stopped"), "refused"),
        (PortClosedError("nothing"), "refused"),
        (DriverError("anything"), "refused"),
        (asyncio.CancelledError(), "cancelled"),
        (KeyError("bug"), "failed"),
    ],
)
async def test_what_fails_is_told_by_what_it_means(error: BaseException, outcome: str) -> None:
    heard = Heard()
    with pytest.raises(type(error)):
        await TimedWorkspaces(Failing(error), heard).ensure(_SPEC)
    assert heard == [("ensure", outcome)]


async def test_processes_and_shells_are_timed_whoever_holds_them() -> None:
    class Holding(HostExecRuntime):
        async def start_shell(self, ref: WorkspaceRef, session_id: str, size: TerminalSize, terms: HoldTerms) -> None:
            raise RuntimeUnavailableError("away")

        async def find_shell(self, ref: WorkspaceRef, session_id: str) -> None:
            raise WorkspaceNotRunningError("stopped")

    heard, driver = Heard(), Holding()
    timed = TimedExec(driver, heard)
    assert isinstance(timed, ExecRuntime)
    assert isinstance(timed, ShellRuntime)
    await timed.open()
    stream = await timed.exec(_REF, ["true"], tty=False)
    assert await stream.wait() == 0
    await stream.close()
    terms = HoldTerms(1, 1, 1, 1, 1, 1)
    with pytest.raises(RuntimeUnavailableError):
        await timed.start_shell(_REF, "s", TerminalSize(), terms)
    with pytest.raises(WorkspaceNotRunningError):
        await timed.find_shell(_REF, "s")
    await timed.close()
    assert heard == [("open", "ok"), ("exec", "ok"), ("start_shell", "unavailable"), ("find_shell", "refused")]
