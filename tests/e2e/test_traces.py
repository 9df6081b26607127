"""One trace leads from a request to the workspace that runs, through all services and their logs."""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.otlp import Collector, Seen, until
from tests.support.phone import Phone
from tests.support.stack import LocalStack

_TRACE_ID = re.compile(r"[0-9a-f]{32}")
# What every create does, by service. FastAPI, the outbox, the consumers, the reconciler and the drivers made them.
_STORY = [
    ("devpocket-envs", "SERVER", "POST /api/v1/environments"),
    ("devpocket-envs", "CLIENT", "insert environments"),
    ("devpocket-envs", "PRODUCER", "publish devpocket.env.*.created"),
    ("devpocket-orchestrator", "CONSUMER", "process devpocket.env.*.created"),
    ("devpocket-orchestrator", "CLIENT", "update workspaces"),
    ("devpocket-orchestrator", "INTERNAL", "reconcile"),
    ("devpocket-orchestrator", "PRODUCER", "publish devpocket.runtime.*.provisioning"),
    ("devpocket-orchestrator", "INTERNAL", "runtime.ensure"),
    ("devpocket-orchestrator", "PRODUCER", "publish devpocket.runtime.*.running"),
    ("devpocket-envs", "CONSUMER", "process devpocket.runtime.*.running"),
    ("devpocket-envs", "CLIENT", "update environments"),
    ("devpocket-envs", "PRODUCER", "publish devpocket.env.*.status_changed"),
    ("devpocket-terminal", "CONSUMER", "process devpocket.env.*.status_changed"),
]


@dataclass(frozen=True)
class Created:
    """An environment that runs, and what the answer to its creation said."""

    environment_id: str
    trace_id: str
    headers: httpx.Headers


async def _create(phone: Phone, name: str, **headers: str) -> Created:
    body = {"name": name, "template": "python", "environment_variables": {"PLANTED": "s3cret-of-a-user"}}
    answer = await phone.http.post("/api/v1/environments", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    environment_id = answer.json()["id"]
    await phone.until(environment_id, "running")
    return Created(environment_id, answer.headers["X-Trace-ID"], answer.headers)


def _names(spans: list[Seen]) -> set[tuple[str, str]]:
    return {(span.service, span.name) for span in spans}


async def _told(collector: Collector, trace_id: str, *names: tuple[str, str]) -> list[Seen]:
    """The spans of a trace, once all that are named, (service, name), are there.

    Services send what they have in batches of their own, a parent maybe after its children: one span says nothing
    about another.
    """
    await until(lambda: set(names) <= _names(collector.spans(trace_id)))
    return collector.spans(trace_id)


def _is_whole(spans: list[Seen]) -> bool:
    """Whether the whole story is there, and every span's parent."""
    ids = {span.span_id for span in spans}
    told = {(span.service, span.kind, span.name) for span in spans}
    return set(_STORY) <= told and all(span.parent_id in ids for span in spans if span.parent_id)


class TestACreation:
    async def test_is_one_trace_to_the_workspace_that_runs(
        self, alice: Phone, stack: LocalStack, collector: Collector
    ) -> None:
        created = await _create(alice, "traced")
        assert _TRACE_ID.fullmatch(created.trace_id)
        assert created.headers["traceresponse"].split("-")[1] == created.trace_id
        spans: list[Seen] = []

        def is_whole() -> bool:
            """What comes later may again lack its parents."""
            spans[:] = collector.spans(created.trace_id)
            return _is_whole(spans)

        await until(is_whole)
        by_id = {span.span_id: span for span in spans}
        assert [span.name for span in spans if not span.parent_id] == ["POST /api/v1/environments"]
        assert by_id[created.headers["traceresponse"].split("-")[2]].kind == "SERVER"
        # Nothing begins before what caused it.
        assert [span for span in spans if span.parent_id and span.start_ns < by_id[span.parent_id].start_ns] == []

        ensured = next(span for span in spans if span.name == "runtime.ensure")
        assert ensured.attributes["devpocket.environment.id"] == created.environment_id
        assert by_id[ensured.parent_id].name == "reconcile"
        assert "s3cret-of-a-user" not in repr(spans)

    async def test_is_in_the_logs_of_every_service_that_had_a_part_in_it(self, alice: Phone, stack: LocalStack) -> None:
        created = await _create(alice, "logged")
        logs = stack.data_dir / "logs"

        def told() -> dict[str, list[str]]:
            lines = {path.stem: path.read_text(errors="replace").splitlines() for path in logs.glob("*.log")}
            return {name: [line for line in found if created.trace_id in line] for name, found in lines.items()}

        def is_whole() -> bool:
            found = told()
            terminals = found["terminal-1"] + found["terminal-2"]
            return all((found["gateway"], found["envs"][1:], found["orchestrator"][2:], terminals))

        await until(is_whole)
        of_services = [line for name, lines in told().items() if name != "gateway" for line in lines]
        assert [line for line in of_services if created.environment_id not in line] == []
        assert [line for line in of_services if created.headers["X-Request-ID"] not in line] == []


class TestAClient:
    async def test_may_name_the_trace(self, alice: Phone, collector: Collector) -> None:
        named = "4bf92f3577b34da6a3ce929d0e0e4736"
        traceparent = f"00-{named}-00f067aa0ba902b7-00"
        answer = await alice.http.get("/api/v1/environments", headers={"traceparent": traceparent, "baggage": "a=b"})
        assert answer.headers["X-Trace-ID"] == named
        wanted = [("devpocket-envs", name) for name in ("find environments", "GET /api/v1/environments")]
        spans = await _told(collector, named, *wanted)
        server = next(span for span in spans if span.kind == "SERVER")
        assert server.parent_id == "00f067aa0ba902b7"

    async def test_with_nonsense_gets_a_new_one(self, alice: Phone) -> None:
        answer = await alice.http.get("/api/v1/environments", headers={"traceparent": "00-zz-zz-01"})
        assert _TRACE_ID.fullmatch(answer.headers["X-Trace-ID"])


class TestEveryAnswerSaysWhereItsTraceIs:
    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/health/ready", 200),
            ("GET", "/api/v1/auth/me", 401),
            ("GET", "/api/v1/regions", 401),
            ("POST", "/api/v1/auth/login", 422),
            ("GET", "/api/v1/terminal/sessions", 401),
            ("GET", "/api/v1/environments/nothing/nowhere", 404),
        ],
    )
    async def test_of_http(self, stack: LocalStack, method: str, path: str, status: int) -> None:
        async with httpx.AsyncClient(base_url=stack.url) as http:
            answer = await http.request(method, path)
        assert answer.status_code == status
        assert len(answer.headers.get_list("X-Trace-ID")) == 1
        assert answer.headers["X-Trace-ID"] in answer.headers["traceresponse"]

    async def test_of_a_refused_handshake(self, stack: LocalStack, collector: Collector) -> None:
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"{stack.url.replace('http', 'ws', 1)}/api/v1/ws/terminal/nothing?token=s3cret-token"):
                pass
        trace_id = refused.value.response.headers["X-Trace-ID"]
        await until(lambda: bool(collector.spans(trace_id)))
        (span,) = collector.spans(trace_id)
        assert (span.name, span.kind) == ("WS /api/v1/ws/terminal/{environment_id}", "SERVER")
        assert span.attributes["http.response.status_code"] == 401
        assert "s3cret-token" not in repr(span)


class TestATerminal:
    async def test_is_traced_until_it_is_open_and_at_its_end(self, alice: Phone, collector: Collector) -> None:
        created = await _create(alice, "worked-in")
        async with alice.socket(created.environment_id) as socket:
            assert socket.response is not None
            trace_id = socket.response.headers["X-Trace-ID"]
            handshake = ("devpocket-terminal", "WS /api/v1/ws/terminal/{environment_id}")
            spans = await _told(collector, trace_id, handshake, ("devpocket-terminal", "runtime.start_shell"))
            # The connection is open, and its span is here.
            opening = next(span for span in spans if span.kind == "SERVER")
            assert opening.attributes["http.response.status_code"] == 101
            await socket.send('{"type":"input","data":"echo what-a-user-types; exit\\n"}')
            spans = await _told(
                collector,
                trace_id,
                ("devpocket-terminal", "publish devpocket.terminal.*.session_opened"),
                ("devpocket-envs", "process devpocket.terminal.*.session_closed"),
            )
        assert "what-a-user-types" not in repr(spans)

    async def test_commands_are_traced_and_so_is_redis(self, alice: Phone, collector: Collector) -> None:
        created = await _create(alice, "commanded")
        path = f"/api/v1/environments/{created.environment_id}/exec"
        answer = await alice.http.post(path, json={"command": "echo what-a-user-types"})
        assert answer.status_code == 200, answer.text
        ticket = {"environment_id": created.environment_id, "kind": "terminal"}
        issued = await alice.http.post("/api/v1/ws/tickets", json=ticket)
        exec_id, ticket_id = answer.headers["X-Trace-ID"], issued.headers["X-Trace-ID"]
        exec_route = ("devpocket-terminal", "POST /api/v1/environments/{environment_id}/exec")
        spans = await _told(collector, exec_id, exec_route, ("devpocket-terminal", "runtime.exec"))
        assert "what-a-user-types" not in repr(spans)
        ticket_route = ("devpocket-terminal", "POST /api/v1/ws/tickets")
        spans = await _told(collector, ticket_id, ticket_route, ("devpocket-terminal", "SET"))
        redis = next(span for span in spans if span.attributes.get("db.system.name") == "redis")
        assert (redis.kind, redis.name) == ("CLIENT", "SET")
        assert issued.json()["ticket"] not in repr(spans)
