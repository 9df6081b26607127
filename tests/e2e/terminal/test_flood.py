"""`yes` before a client that does not read. TRUST_YES_SECONDS: for how long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from libs.common.http.flight import IN_FLIGHT_BYTES
from services.terminal.settings import TerminalSettings
from tests.e2e.terminal.conftest import amount
from tests.e2e.terminal.reader import Reader, connected
from tests.support.memory import MIB, growth, in_use
from tests.support.phone import Phone
from tests.support.stack import LocalStack

_LOOK_EVERY_S = 1.0
# The ring of the burst, the frames on the way, and what an allocator keeps.
_ALLOWED_MIB = 20
# Once the shell is paused nothing comes in any more.
_FLAT_MIB = 2

log = logging.getLogger(__name__)


@pytest.fixture
async def near_and_far(alice: Phone, environment_id: str) -> AsyncIterator[tuple[Reader, Reader]]:
    """The one who opened a shell, and one who reaches it through the other replica."""
    near = await connected(alice.address(environment_id))
    await near.wire.send_binary(b"PS1='$'; echo =$((6*7))=\n")
    await near.expect(b"=42=")
    # The gateway takes the replica with fewer connections.
    far = await connected(f"{alice.address(environment_id)}&session={near.session_id}")
    await far.expect(b"=42=")
    yield near, far
    near.wire.cut()
    far.wire.cut()


@pytest.mark.timeout(200)
async def test_yes_costs_no_memory_and_ends_with_ctrl_c(stack: LocalStack, near_and_far: tuple[Reader, Reader]) -> None:
    before = in_use(stack, "terminal")
    assert len(before) == 2
    near, far = near_and_far
    await near.wire.send_binary(b"yes\n")
    samples = []
    for _ in range(amount("YES_SECONDS", 8)):
        await asyncio.sleep(_LOOK_EVERY_S)
        samples.append(in_use(stack, "terminal"))
    log.info("MiB more than before, second by second: %s", [growth(before, sample) for sample in samples])
    assert max(growth(before, samples[-1]).values()) <= _ALLOWED_MIB
    half = len(samples) // 2
    assert max(growth(samples[half], samples[-1]).values()) <= _FLAT_MIB
    for reader in (near, far):
        reader.output.clear()
    await near.wire.send_binary(b"\x03")
    await near.wire.send_binary(b"echo =$((7*7))=\n")
    await asyncio.gather(near.expect(b"=49="), far.expect(b"=49="))
    settings = TerminalSettings(_env_file=None)
    on_the_way = IN_FLIGHT_BYTES + 2 * settings.terminal_window_bytes + MIB
    for reader in (near, far):
        count, interrupts = len(reader.output), bytes(reader.output).count(b"^C")
        log.info("%d bytes came before the prompt", count)
        # What had been written before, and nothing that `yes` wrote later.
        assert count < on_the_way
        assert not reader.gaps
        assert interrupts == 1
