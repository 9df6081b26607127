"""A stream over a connection that is cut a thousand times, through the gateway, onto either of two replicas.

TRUST_CUTS and TRUST_STREAM_MB say how often and how long, TRUST_SEED where the cuts fall.
"""

from __future__ import annotations

import logging
import re

from libs.common.http.flight import IN_FLIGHT_BYTES
from services.terminal.settings import TerminalSettings
from tests.e2e.terminal.conftest import amount, at_rest
from tests.support.phone import Phone
from tests.support.stack import LocalStack
from tests.support.torn_terminal import KnownStream, Moment, TornTerminal

_FRAME_BYTES = 64 * 1024

log = logging.getLogger(__name__)


def torn(phone: Phone, environment_id: str, *, cuts: int, size: int) -> TornTerminal:
    seed = amount("SEED", 7)
    return TornTerminal(phone.address(environment_id), KnownStream(seed, size), cuts=cuts, seed=seed)


async def test_a_connection_cut_a_thousand_times_loses_and_doubles_nothing(stack: LocalStack, admin: Phone) -> None:
    environment_id = await admin.create("torn", template="ubuntu")
    cuts = amount("CUTS", 1_000)
    terminal = torn(admin, environment_id, cuts=cuts, size=amount("STREAM_MB", 50) * 1_000_000)
    try:
        report = await terminal.run()
    finally:
        await admin.http.delete(f"/api/v1/environments/{environment_id}")
    log.info(report)
    assert set(report.cuts) == set(Moment)
    # Cut connections give their places back: this user may have fifty, and one that is not given back lasts for 20 s.
    assert set(report.answers) <= {"101", "close 1000"}, report
    gateway = (stack.data_dir / "logs" / "gateway.log").read_text()
    served = re.findall(rf"/ws/terminal/{environment_id} 101 .* upstream=(\S+) ", gateway)
    assert len(set(served)) == 2, set(served)


async def test_the_shell_waits_for_a_client_that_has_not_received(alice: Phone, environment_id: str) -> None:
    """However much the kernels and the gateway take on its behalf: a cut loses it, and the ring must still have it."""
    terminal = torn(alice, environment_id, cuts=0, size=20_000_000)
    await terminal.begin()
    wire = await terminal.connected()
    ahead = await at_rest(alice, terminal.offset) - terminal.offset
    settings = TerminalSettings(_env_file=None)
    # What is on the way, and another window between the replicas.
    assert ahead <= IN_FLIGHT_BYTES + 2 * settings.terminal_window_bytes + 3 * _FRAME_BYTES
    assert ahead < settings.terminal_ring_burst_bytes
    wire.cut()
    await terminal.run()
