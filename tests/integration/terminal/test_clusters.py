"""Workspaces in several clusters: told by events in any order, reached by terminals and logs."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from websockets.asyncio.client import connect

from libs.common import clusters as sealing
from libs.common import mongo
from libs.common.context import Cause
from libs.common.contracts.clusters import (
    CLUSTER_EVENTS,
    ClusterConnection,
    ClusterHealth,
    ClusterHealthChanged,
    ClusterRegistered,
    ClusterRemoved,
    ClusterState,
    ClusterStatus,
    ClusterUpdated,
)
from libs.common.contracts.events import Event
from libs.common.history.drift import drifts
from libs.common.history.replay import EventClock
from libs.common.ids import new_id
from libs.common.messaging.subscriptions import Delivery
from libs.runtime.kubernetes.options import ClusterAccess, KubernetesOptions
from libs.runtime.port import LogLine
from services.terminal.domain import Cluster
from services.terminal.replay import replay_target
from services.terminal.repository import MongoClusters
from tests.fakes.exec_runtime import HostExecRuntime
from tests.integration.terminal.harness import TIMEOUT_S, Service, running_service, terminal_settings
from tests.integration.terminal.test_handshake import problem
from tests.support.app import eventually
from tests.support.servers import Servers

_LINE = LogLine(datetime(2026, 11, 25, 12, 0, tzinfo=UTC), "stdout", "from far away")
# Each question that is answered with a shell starts one.
_PAUSE_S = 0.1


@dataclass
class FarCluster:
    """A registered cluster that is in truth this machine, and what the orchestrator tells of it."""

    service: Service
    drivers: dict[str, HostExecRuntime]
    id: str = field(default_factory=lambda: f"far-{new_id()[-12:]}")
    versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def runtime(self, credentials: str = "first") -> HostExecRuntime:
        """What these credentials lead to."""
        return self.drivers.setdefault(f"{self.id}/{credentials}", HostExecRuntime())

    def state(self, event: type[ClusterState] = ClusterUpdated, credentials: str = "first", **changes: Any) -> Any:
        """Its newest, as an event."""
        settings = self.service.settings
        sealer = sealing.ClusterDrivers(settings, settings.secret_key.get_secret_value())
        connection = ClusterConnection(kubeconfig={"address": f"{self.id}/{credentials}"})
        changes = {"connection_sealed": sealer.seal(connection), **changes}
        return state(self.id, next(self.versions), event, **changes)

    async def tell(self, *how: Any, **changes: Any) -> None:
        """Publish `state(…)`; returns when the read model has it."""
        await self.service.publish(self.state(*how, **changes), self.id)
        await self.service.caught_up("clusters")

    async def environment(self, user_id: str) -> str:
        return await self.service.environment(user_id, cluster=self.id)

    async def refusal(self, environment_id: str, token: str) -> str:
        """Ask for a shell until the answer is 503; what it says. News may be heeded a second late."""
        url = self.service.url(f"terminal/{environment_id}", token=token)
        async with asyncio.timeout(TIMEOUT_S):
            # Those that were let in before may still hold their user's places.
            while (answer := await self.service.knock(url)) is None or answer.status_code == 429:  # noqa: ASYNC110
                await asyncio.sleep(_PAUSE_S)
        assert problem(answer) == (503, "unavailable")
        return str(answer.json()["detail"])


def state(cluster_id: str, version: int, event: type[ClusterState] = ClusterUpdated, **changes: Any) -> ClusterState:
    values: dict[str, Any] = {
        "cluster_id": cluster_id,
        "region": "eu",
        "runtime": "kubernetes",
        "is_default": False,
        "status": ClusterStatus.ACTIVE,
        "health": ClusterHealth.HEALTHY,
        "connection_sealed": "sealed",
        "version": version,
        **changes,
    }
    return event(**values)


@pytest.fixture
def drivers(monkeypatch: pytest.MonkeyPatch) -> dict[str, HostExecRuntime]:
    """Every registered cluster is on this machine: which one, its kubeconfig says."""
    found: dict[str, HostExecRuntime] = {}

    def kubernetes_driver(access: ClusterAccess, options: KubernetesOptions) -> HostExecRuntime:
        assert access.kubeconfig is not None
        assert access.kubeconfig["address"].startswith(f"{options.cluster}/")
        return found[access.kubeconfig["address"]]

    monkeypatch.setattr(sealing, "kubernetes_driver", kubernetes_driver)
    return found


@pytest.fixture
async def far(service: Service, drivers: dict[str, HostExecRuntime]) -> AsyncIterator[FarCluster]:
    cluster = FarCluster(service, drivers)
    cluster.runtime()
    yield cluster
    for runtime in drivers.values():
        await runtime.close()


@pytest.fixture
async def user_id() -> str:
    return new_id()


@pytest.fixture
def token(service: Service, user_id: str) -> str:
    return service.issuer.token(user_id)


class TestRouting:
    async def test_terminal_and_logs_reach_the_cluster_of_the_environment(
        self, service: Service, far: FarCluster, user_id: str, token: str
    ) -> None:
        await far.tell(ClusterRegistered)
        here, there = await service.environment(user_id), await far.environment(user_id)
        await far.runtime().log(there, _LINE)
        at_default = len(service.runtime.streams)
        async with service.shell(there, token) as shell:
            await shell.run("echo =$((6*7))=", "=42=")
        assert (len(service.runtime.streams), len(far.runtime().streams)) == (at_default, 1)
        async with connect(service.url(f"logs/{there}", token=token), proxy=None) as socket:
            assert json.loads(await socket.recv())["message"] == "from far away"
        async with service.shell(here, token) as shell:
            await shell.run("echo =$((6*7))=", "=42=")
        assert (len(service.runtime.streams), len(far.runtime().streams)) == (at_default + 1, 1)

    async def test_the_environment_may_be_told_of_first(
        self, service: Service, far: FarCluster, user_id: str, token: str
    ) -> None:
        environment_id = await far.environment(user_id)
        detail = await far.refusal(environment_id, token)
        assert "try again" in detail
        async with connect(service.url(f"logs/{environment_id}", token=token), proxy=None) as socket:
            await far.runtime().log(environment_id, _LINE)
            await far.tell(ClusterRegistered)
            # A log that is followed waits for the cluster as it does for the workspace.
            assert json.loads(await socket.recv())["message"] == "from far away"
        async with service.shell(environment_id, token) as shell:
            await shell.run("echo =$((6*7))=", "=42=")


class TestTrouble:
    async def test_one_that_gives_no_answer_refuses_at_once_and_ends_nothing(
        self, service: Service, far: FarCluster, user_id: str, token: str
    ) -> None:
        await far.tell(ClusterRegistered)
        environment_id = await far.environment(user_id)
        async with service.shell(environment_id, token) as shell:
            await far.tell(ClusterHealthChanged, health=ClusterHealth.UNREACHABLE, message="secret address refused")
            detail = await far.refusal(environment_id, token)
            assert detail == "The cluster your environment runs on does not answer right now, please try again later"
            await shell.run("echo =$((6*7))=", "=42=")
            session_id, offset = shell.session_id, shell.offset
        async with service.shell(environment_id, token, session=session_id, offset=offset) as shell:
            await shell.run("echo =$((6*8))=", "=48=")

    async def test_new_credentials_leave_old_shells_alone(
        self, service: Service, far: FarCluster, user_id: str, token: str
    ) -> None:
        await far.tell(ClusterRegistered)
        environment_id = await far.environment(user_id)
        async with service.shell(environment_id, token) as old:
            second = far.runtime("second")
            await far.tell(ClusterUpdated, credentials="second")

            async with asyncio.timeout(TIMEOUT_S):
                while not second.streams:
                    async with service.shell(environment_id, token) as shell:
                        await shell.run("echo =$((6*7))=", "=42=")
                    await asyncio.sleep(_PAUSE_S)
            await old.run("echo =$((6*8))=", "=48=")

    async def test_a_removed_one_is_refused_in_words_of_its_own(
        self, service: Service, far: FarCluster, user_id: str, token: str
    ) -> None:
        await far.tell(ClusterRegistered)
        environment_id = await far.environment(user_id)
        async with service.shell(environment_id, token) as shell:
            await far.tell(ClusterRemoved, status=ClusterStatus.REMOVED, connection_sealed=None)
            assert "taken out of service" in await far.refusal(environment_id, token)
            await shell.run("echo =$((6*7))=", "=42=")

    async def test_credentials_under_another_key_are_503(
        self, service: Service, far: FarCluster, user_id: str, token: str
    ) -> None:
        await far.tell(ClusterRegistered, connection_sealed="gAAAAA-not-ours")
        environment_id = await far.environment(user_id)
        assert "gAAAAA" not in await far.refusal(environment_id, token)


class TestReadiness:
    @pytest.mark.parametrize("registered", [True, False])
    async def test_any_cluster_that_works_makes_the_service_ready(
        self, backend: Servers, far: FarCluster, registered: bool
    ) -> None:
        # Nothing is published meanwhile: the two services share their consumers, but not the read model.
        runtime = HostExecRuntime()
        runtime.away = True
        async with running_service(backend, runtime, database_name=f"test_{new_id()[-12:]}") as lonely:
            if registered:
                await MongoClusters(lonely.app.state.platform.database).apply(far.state())
            async with lonely.http as client:

                async def is_so() -> bool:
                    answer = await client.get("/health/ready")
                    state: str = answer.json()["checks"]["runtime"]
                    return (answer.status_code, state) == ((200, "healthy") if registered else (503, "unhealthy"))

                await eventually(is_so)


@pytest.fixture
async def scratch(backend: Servers) -> AsyncIterator[Callable[[], mongo.Database]]:
    """Makes empty databases."""
    settings = terminal_settings(backend)
    client = mongo.connect(settings)
    yield lambda: client[f"test_{new_id()[-12:]}"]
    await mongo.close(client)


@pytest.fixture
def clusters(scratch: Callable[[], mongo.Database]) -> MongoClusters:
    return MongoClusters(scratch())


class TestReadModel:
    @pytest.mark.parametrize("seed", range(5))
    async def test_in_any_order_and_repeated_the_newest_stays(self, clusters: MongoClusters, seed: int) -> None:
        kinds = [ClusterRegistered, ClusterHealthChanged, ClusterUpdated, ClusterRemoved, ClusterRegistered]
        told = [state("c", version, kind, connection_sealed=f"s{version}") for version, kind in enumerate(kinds, 1)]
        told[-1] = state("c", 9, ClusterUpdated, health=ClusterHealth.UNREACHABLE, message="no", connection_sealed="s9")
        events = [*told, *told]
        random.Random(seed).shuffle(events)
        for event in events:
            await clusters.apply(event)
        assert await clusters.find("c") == Cluster(
            "c", ClusterStatus.ACTIVE, ClusterHealth.UNREACHABLE, "no", connection_sealed="s9"
        )

    @pytest.mark.parametrize("late", [False, True])
    async def test_a_removed_one_stays_known_without_its_connection(self, clusters: MongoClusters, late: bool) -> None:
        removed = state("c", 2, ClusterRemoved, status=ClusterStatus.REMOVED)
        for event in [removed, state("c", 1)] if late else [state("c", 1), removed]:
            await clusters.apply(event)
        found = await clusters.find("c")
        assert found is not None
        assert (found.status, found.connection_sealed) == (ClusterStatus.REMOVED, None)

    async def test_active_ones_are_neither_draining_nor_removed(self, clusters: MongoClusters) -> None:
        for status in ClusterStatus:
            await clusters.apply(state(status.value, 1, status=status))
        assert await clusters.active_ids() == ["active"]
        assert await clusters.find("never-told") is None

    async def test_every_event_about_a_cluster_is_a_state_to_keep(self) -> None:
        assert all(issubclass(event, ClusterState) for event in CLUSTER_EVENTS)


class TestReplay:
    async def test_what_differs_is_named_and_credentials_are_not_shown(
        self, scratch: Callable[[], mongo.Database]
    ) -> None:
        live, replayed = scratch(), scratch()
        target = replay_target(replayed, EventClock())
        await MongoClusters(live).apply(state("c", 2, connection_sealed="gAAAAA-new"))
        data = state("c", 1, health=ClusterHealth.UNREACHABLE, message="no", connection_sealed="gAAAAA-old")
        event = Event.new(data, subject="c", source="orchestrator", cause=Cause())
        (subscription,) = target.handlers(event.nats_subject)
        await subscription.handle(Delivery(event, data, 1))
        (model,) = (model for model in target.models if model.collection == "clusters")
        found = [drift async for drift in drifts(live, replayed, model, since=None)]
        assert [drift.field for drift in found] == ["health", "message", "connection_sealed", "version"]
        assert "gAAAAA" not in json.dumps([drift.as_json() for drift in found])

    async def test_an_environments_cluster_is_compared(self, scratch: Callable[[], mongo.Database]) -> None:
        models = replay_target(scratch(), EventClock()).models
        assert "cluster" in next(model.fields for model in models if model.collection == "environments")
