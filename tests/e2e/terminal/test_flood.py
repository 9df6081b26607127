"""`yes` before a client that does not read. TRUST_YES_SECONDS: for how long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from libs.common.http.flight import IN_FLIGHT_BYTES
from services.terminal.settings import TerminalSettings
from tests.e2e.terminal.conftest import amount, at_rest
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
async def readers(alice: Phone, at_replicas: tuple[Phone, Phone], environment_id: str) -> AsyncIterator[list[Reader]]:
    """One who opened a shell through the gateway, and one at each replica: one of them is far from the shell."""
    opened = [await connected(alice.address(environment_id))]
    await opened[0].wire.send_binary(b"PS1='$'; echo =$((6*7))=\n")
    await opened[0].expect(b"=42=")
    for phone in at_replicas:
        opened.append(await connected(f"{phone.address(environment_id)}&session={opened[0].session_id}"))
        await opened[-1].expect(b"=42=")
    yield opened
    for reader in opened:
        reader.wire.cut()


async def test_yes_costs_no_memory_and_ends_with_ctrl_c(stack: LocalStack, alice: Phone, readers: list[Reader]) -> None:
    before = in_use(stack, "terminal")
    assert len(before) == 2
    await readers[0].wire.send_binary(b"yes\n")
    await at_rest(alice, readers[0].offset + MIB // 16)
    samples = [in_use(stack, "terminal")]
    for _ in range(amount("YES_SECONDS", 3)):
        await asyncio.sleep(_LOOK_EVERY_S)
        samples.append(in_use(stack, "terminal"))
    log.info("MiB more than before, second by second: %s", [growth(before, sample) for sample in samples])
    assert max(growth(before, samples[-1]).values()) <= _ALLOWED_MIB
    assert max(growth(samples[0], samples[-1]).values()) <= _FLAT_MIB
    for reader in readers:
        reader.output.clear()
    typed_at = asyncio.get_running_loop().time()
    await readers[0].wire.send_binary(b"\x03")
    await readers[0].wire.send_binary(b"echo =$((7*7))=\n")
    await asyncio.gather(*(reader.expect(b"=49=") for reader in readers))
    log.info("the prompt was back after %.0f ms", (asyncio.get_running_loop().time() - typed_at) * 1000)
    settings = TerminalSettings(_env_file=None)
    on_the_way = IN_FLIGHT_BYTES + 2 * settings.terminal_window_bytes + MIB
    for reader in readers:
        count, interrupts = len(reader.output), bytes(reader.output).count(b"^C")
        log.info("%d bytes came before the prompt", count)
        # What had been written before, and nothing that `yes` wrote later.
        assert count < on_the_way
        assert not reader.gaps
        assert interrupts == 1
