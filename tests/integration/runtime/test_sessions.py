"""What was started in a workspace is found again, to end it."""

from __future__ import annotations

import select
from typing import Any

import pytest

from libs.runtime.local import runtime as driver
from libs.runtime.local.enter import Entered, enter
from libs.runtime.local.runtime import LocalRuntime
from tests.runtime_contract.workspaces import Workspaces


@pytest.mark.parametrize("tty", [True, False])
async def test_jobs_of_a_command_that_ended_before_anybody_looked_are_ended(
    runtime: LocalRuntime, workspaces: Workspaces, monkeypatch: pytest.MonkeyPatch, tty: bool
) -> None:
    def enter_slowly(*arguments: Any, **options: Any) -> Entered:
        """As on a machine that has no time for us."""
        entered = enter(*arguments, **options)
        select.select([entered.handle], [], [])
        return entered

    ref = await workspaces.start()
    with monkeypatch.context() as slow:
        slow.setattr(driver, "enter", enter_slowly)
        stream = await runtime.exec(ref, ["bash", "-c", "trap '' HUP; sleep 1000 & exit 3"], tty=tty)
    assert await stream.wait() == 3
    await stream.close()
    assert (await workspaces.run(ref, "pgrep -x sleep -a | grep -v infinity"))[1] == b""
