"""Nothing secret is kept, logged or answered where it does not belong: the secrets of a lively run are looked for."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import pytest

from libs.common.messaging.streams import DEAD_LETTER_STREAM, EVENTS_STREAM
from tests.e2e.authorization.ledger import Ledger, leaks
from tests.e2e.authorization.life import LIVE_EVENTS, Life
from tests.e2e.authorization.lively import live
from tests.e2e.authorization.stores import SERVICES, Stores
from tests.e2e.conftest import ADMIN_EMAIL, ADMIN_PASSWORD
from tests.support.otlp import Collector, until
from tests.support.stack import LocalStack

_MAIL_LINE = "mail written"
_REDIS = ("redis at the end", "redis while tickets are out", "redis on disk")


@dataclass(frozen=True)
class Traces:
    """What the run has left behind, as text by place."""

    ledger: Ledger
    logs: Mapping[str, str]
    streams: Mapping[str, str]
    documents: Mapping[str, str]
    redis: Mapping[str, str]
    database_name: str
    spans: str

    def of_service(self, service: str) -> str:
        """All that its database holds."""
        prefix = f"{self.database_name}_{service}."
        return "\n".join(text for place, text in self.documents.items() if place.startswith(prefix))


@pytest.fixture(scope="module")
async def traces(stack: LocalStack, stores: Stores, collector: Collector) -> Traces:
    """Lives through everything once, then looks everywhere."""
    ledger = Ledger()
    for name, value in json.loads((stack.data_dir / "secrets.json").read_text()).items():
        if name.endswith(("key", "password")):
            ledger.learn(f"the stack's {name}", value)
    private = (await stores.signing_key()).private.private_bytes_raw()
    ledger.learn("signing key", base64.b64encode(private).decode())
    ledger.learn("signing key", private.hex())
    life = Life(stack, stores, ledger)
    await live(life, ADMIN_EMAIL, ADMIN_PASSWORD)
    await _sent(stack, collector)
    exported = stack.command("events", "export")
    assert exported.returncode == 0, exported.stderr
    appended = [path.read_text(errors="replace") for path in (stack.data_dir / "redis").rglob("*.aof")]
    return Traces(
        ledger,
        logs={path.name: path.read_text(errors="replace") for path in (stack.data_dir / "logs").iterdir()},
        streams={**await stores.streams(), "the export": exported.stdout},
        documents=await stores.documents(),
        redis=dict(zip(_REDIS, (await stores.in_redis(), *life.snapshots.values(), "\n".join(appended)), strict=True)),
        database_name=stores.settings.database_name,
        spans="\n".join(map(repr, collector.spans())),
    )


async def _sent(stack: LocalStack, collector: Collector) -> None:
    """What services send goes in order: with their last spans all are there."""
    async with httpx.AsyncClient(base_url=stack.url) as http:
        for path in ("auth/me", "environments", "regions", "terminal/sessions"):
            trace_id = (await http.get(f"/api/v1/{path}")).headers["X-Trace-ID"]
            await until(lambda trace_id=trace_id: bool(collector.spans(trace_id)))  # type: ignore[misc]


def _without_mails(log: str) -> str:
    return "\n".join(line for line in log.splitlines() if _MAIL_LINE not in line)


def _none(found: list[str]) -> None:
    assert not found, "; ".join(found)


class TestNothingSecretIsIn:
    def test_logs(self, stack: LocalStack, traces: Traces) -> None:
        assert {f"{row['name']}.log" for row in stack.status()} <= set(traces.logs)
        _none(traces.ledger.leaks_in({name: _without_mails(text) for name, text in traces.logs.items()}))

    def test_the_event_stream_and_its_dead_letters(self, traces: Traces) -> None:
        _none(traces.ledger.leaks_in(traces.streams))

    def test_databases(self, traces: Traces) -> None:
        _none(traces.ledger.leaks_in(traces.documents))

    def test_spans(self, traces: Traces) -> None:
        _none(traces.ledger.leaks_in({"spans": traces.spans}))

    def test_redis(self, traces: Traces) -> None:
        _none(traces.ledger.leaks_in(traces.redis))

    def test_answers_other_than_the_one_that_gives_it(self, traces: Traces) -> None:
        _none(traces.ledger.leaks_in_answers())


class TestMailedLinks:
    def test_are_logged_only_where_the_mailer_of_developers_does_it_on_purpose(self, traces: Traces) -> None:
        lines = [line for line in traces.logs["auth.log"].splitlines() if _MAIL_LINE in line]
        links = traces.ledger.links
        assert links == {link for link in links if any(link in line for line in lines)}
        others = {value: name for value, name in traces.ledger.secrets.items() if value not in links}
        _none(leaks(others, {"a line about a mail": "\n".join(lines)}))

    async def test_are_used_up_by_then(self, stack: LocalStack, traces: Traces) -> None:
        assert len(traces.ledger.links) == 3
        async with httpx.AsyncClient(base_url=stack.url) as http:
            for token in traces.ledger.links:
                bodies = {"verify-email": {}, "reset-password": {"new_password": "An0ther-password"}}
                for path, more in bodies.items():
                    answer = await http.post(f"/api/v1/auth/{path}", json={"token": token, **more})
                    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_link"), path


class TestTheSearch:
    """It would find a secret: it finds what is there for everybody to see."""

    @pytest.mark.parametrize(
        ("log", "marker"),
        [
            ("auth.log", "user"),
            ("envs.log", "environment"),
            ("orchestrator.log", "environment"),
            ("terminal", "environment"),
            ("gateway.log", "environment"),
        ],
    )
    def test_finds_markers_in_logs(self, traces: Traces, log: str, marker: str) -> None:
        found = [text for name, text in traces.logs.items() if name.startswith(log)]
        assert self._finds(traces, marker, _without_mails("\n".join(found)))

    @pytest.mark.parametrize(
        ("stream", "marker"),
        [
            (EVENTS_STREAM, "environment name"),
            (EVENTS_STREAM, "username"),
            ("the export", "environment name"),
            (DEAD_LETTER_STREAM, "dead letter"),
        ],
    )
    def test_finds_markers_in_streams(self, traces: Traces, stream: str, marker: str) -> None:
        assert self._finds(traces, marker, traces.streams[stream])

    @pytest.mark.parametrize(
        ("service", "marker"),
        zip(SERVICES, ("username", "environment name", "environment", "environment"), strict=True),
    )
    def test_finds_markers_in_databases(self, traces: Traces, service: str, marker: str) -> None:
        assert self._finds(traces, marker, traces.of_service(service))

    @pytest.mark.parametrize("marker", ["environment", "user"])
    def test_finds_markers_in_spans(self, traces: Traces, marker: str) -> None:
        assert self._finds(traces, marker, traces.spans)

    @pytest.mark.parametrize(
        ("place", "marker"), zip(_REDIS, ("ended session", "environment", "ended session"), strict=True)
    )
    def test_finds_markers_in_redis(self, traces: Traces, place: str, marker: str) -> None:
        assert self._finds(traces, marker, traces.redis[place])

    def test_finds_markers_and_given_secrets_in_answers(self, traces: Traces) -> None:
        ledger = traces.ledger
        assert self._finds(traces, "environment name", "\n".join(ledger.answers))
        live_events = next(answer for answer in ledger.answers if answer.startswith(LIVE_EVENTS))
        assert self._finds(traces, "environment", live_events)
        kinds = {text.partition(" in ")[0] for text in leaks(ledger.secrets, {"answers": "\n".join(ledger.answers)})}
        assert kinds == {"access token", "refresh token", "API key", "ticket"}

    @staticmethod
    def _finds(traces: Traces, marker: str, text: str) -> bool:
        return leaks({traces.ledger.markers[marker]: marker}, {"there": text}) == [f"{marker} in there"]
