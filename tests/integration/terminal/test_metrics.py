"""Shells, their bytes and the processes started, as Prometheus gets them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from libs.common.contracts.environments import EnvironmentStatus
from libs.common.ids import new_id
from tests.integration.terminal.harness import Service
from tests.support.app import eventually

_ROUTE = "/api/v1/ws/terminal/{environment_id}"

Seen = dict[str, float]


async def _look(service: Service) -> Seen:
    async with service.http as http:
        text = (await http.get("/metrics")).text
    names = {
        "devpocket_terminal_sessions": "state",
        "devpocket_terminal_bytes_total": "direction",
        "devpocket_websocket_connections": "route",
        "devpocket_websockets_ended_total": "close_code",
        "devpocket_execs_total": "outcome",
    }
    return {
        sample.labels[names[sample.name]]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in names
    }


def _grown(before: Seen, after: Seen, name: str) -> float:
    return after.get(name, 0) - before.get(name, 0)


async def test_a_shell_is_counted_with_what_was_typed_and_put_out(service: Service) -> None:
    user_id = new_id()
    environment_id = await service.environment(user_id)
    token = service.issuer.token(user_id)
    before = await _look(service)
    typed = "echo $((20 + 3))-$((4))\n"
    async with service.shell(environment_id, token) as shell:
        await shell.type(typed)
        await shell.expect("23-4")
        during = await _look(service)
        assert _grown(before, during, "attached") == 1
        assert _grown(before, during, _ROUTE) == 1
        assert _grown(before, during, "started") == 1
        assert _grown(before, during, "in") == len(typed)
        assert _grown(before, during, "out") >= len("23-4")

    async def detached() -> bool:
        return _grown(before, await _look(service), "detached") == 1

    await eventually(detached)
    async with service.shell(environment_id, token, session=shell.session_id, offset=shell.offset) as again:
        await again.type("exit\n")
        await again.until(lambda: any(frame["type"] == "exit" for frame in again.frames))

    async def gone() -> bool:
        now = await _look(service)
        return _grown(before, now, "attached") == _grown(before, now, _ROUTE) == 0

    await eventually(gone)
    after = await _look(service)
    # What a shell that has ended has put out still counts.
    assert _grown(during, after, "out") >= 0
    assert _grown(before, after, "in") == len(typed) + len("exit\n")


async def test_a_handshake_that_is_refused_is_counted_by_its_status(service: Service) -> None:
    user_id = new_id()
    environment_id = await service.environment(user_id, EnvironmentStatus.STOPPED)
    before = await _look(service)
    url = service.url(f"terminal/{environment_id}", token=service.issuer.token(user_id))
    assert (await service.refusal(url)).status_code == 409
    assert _grown(before, await _look(service), "409") == 1
