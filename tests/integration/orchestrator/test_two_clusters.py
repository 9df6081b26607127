"""A local default and two Kubernetes clusters: placed by region, one goes away and comes back, drained, removed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from libs.common.contracts.clusters import CLUSTER_SEAL, ClusterConnection
from libs.common.contracts.events import (
    EnvironmentCreated,
    EnvironmentDeleteRequested,
    EnvironmentStartRequested,
    EnvironmentStopRequested,
    Event,
)
from libs.common.contracts.identity import Plan
from libs.common.ids import new_id
from libs.common.messaging.streams import EVENTS_STREAM
from libs.common.security.sealing import Sealer
from libs.runtime.port import WorkspaceRef
from services.orchestrator.domain import steps
from services.orchestrator.main import create_app
from services.orchestrator.settings import OrchestratorSettings
from tests.fakes.kube import FakeCluster
from tests.fakes.kube.resources import PODS
from tests.fakes.runtime import FakeRuntime
from tests.integration.orchestrator.conftest import Envs, name_of
from tests.integration.runtime.kubernetes.helpers import find, leftovers
from tests.support.app import running_app
from tests.support.tokens import TestIssuer
from tests.unit.orchestrator.memory import template, wish

API = "/api/v1/clusters"
_PATIENCE_S = 30.0


class World:
    """The orchestrator with a default in memory and the clusters eu-1 and us-1."""

    def __init__(self, http: httpx.AsyncClient, issuer: TestIssuer, envs: Envs, clusters: list[FakeCluster]) -> None:
        self.http, self.envs = http, envs
        self.eu, self.us = clusters
        self._admin, self._user = issuer.headers(plan=Plan.ADMIN), issuer.headers()
        self.answers: list[str] = []

    async def call(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        answer = await self.http.request(method, path, headers=self._admin, **options)
        assert answer.status_code == status, answer.text
        self.answers.append(answer.text)
        return answer.json() if answer.content else None

    async def register(self) -> None:
        """One as an object, one as text."""
        body = {"name": "eu-1", "region": "eu", "kubeconfig": self.eu.kubeconfig}
        await self.call("POST", API, 201, json=body)
        body = {"name": "us-1", "region": "us", "kubeconfig": json.dumps(self.us.kubeconfig)}
        await self.call("POST", API, 201, json=body)

    async def regions(self) -> dict[str, str]:
        answer = await self.http.get("/api/v1/regions", headers=self._user)
        return {region["name"]: region["status"] for region in answer.json()}

    async def regions_become(self, **wanted: str) -> None:
        """Until users see it so; raises TimeoutError."""
        async with asyncio.timeout(_PATIENCE_S):
            while not wanted.items() <= (await self.regions()).items():  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.05)

    async def create(self, region: str | None) -> str:
        """A new environment of a new user; returns its id."""
        environment_id = new_id()
        await self.say(EnvironmentCreated, environment_id, 1, region)
        return environment_id

    async def say(self, kind: Any, environment_id: str, generation: int, region: str | None = None) -> None:
        spec = template(image="devpocket/python:latest")
        data = wish(kind, environment_id=environment_id, generation=generation, spec=spec)
        await self.envs.say(data.model_copy(update={"region": region, "user_id": f"user-{environment_id}"}))

    async def ends(self, environment_id: str, last: str, *, times: int = 1) -> Event:
        """The last report, once it has come."""
        return (await self.envs.reports(environment_id, last, times=times))[-1]

    async def story(self, cluster: str, last: str, *, times: int = 1) -> list[Event]:
        """All events about a cluster until this one has come so many times."""
        config = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL)
        subject = f"devpocket.cluster.{cluster}.*"
        subscription = await self.envs.jetstream.subscribe(subject, stream=EVENTS_STREAM, config=config)
        found: list[Event] = []
        try:
            while [name_of(event) for event in found].count(last) < times:
                message = await subscription.next_msg(_PATIENCE_S)
                found.append(Event.model_validate_json(message.data))
        finally:
            await subscription.unsubscribe()
        return found

    def pod(self, cluster: FakeCluster, environment_id: str) -> dict[str, Any] | None:
        return find(cluster, PODS, WorkspaceRef(environment_id, f"user-{environment_id}"))


@pytest.fixture
async def clusters() -> AsyncIterator[list[FakeCluster]]:
    folder = Path(tempfile.mkdtemp(prefix="devpocket-clusters-"))
    os.chmod(folder, 0o711)
    async with AsyncExitStack() as stack:
        found = []
        for name in ("eu", "us"):
            (folder / name).mkdir(mode=0o711)
            found.append(await stack.enter_async_context(FakeCluster(folder=folder / name)))
        yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def swift(settings: OrchestratorSettings, monkeypatch: pytest.MonkeyPatch) -> OrchestratorSettings:
    # What has failed for as long as a cluster was away would be tried again only some seconds after it is back.
    monkeypatch.setattr(steps, "_LONGEST_RETRY_S", 1.0)
    return settings.model_copy(
        update={
            "cluster_refresh_seconds": 0.1,
            "cluster_check_seconds": 0.3,
            "resync_interval_seconds": 0.5,
            "stop_grace_seconds": 0.5,
            "log_level": "DEBUG",
        }
    )


@pytest.fixture
async def world(
    swift: OrchestratorSettings, issuer: TestIssuer, envs: Envs, clusters: list[FakeCluster]
) -> AsyncIterator[World]:
    async with running_app(create_app(swift, keys=issuer, runtime=FakeRuntime())) as http:
        world = World(http, issuer, envs, clusters)
        await world.register()
        await world.regions_become(eu="available", us="available")
        yield world


class TestPlacement:
    async def test_environments_live_where_their_region_is(self, world: World) -> None:
        here, eu, us = [await world.create(region) for region in (None, "eu", "us")]
        for environment_id, cluster in ((here, "default"), (eu, "eu-1"), (us, "us-1")):
            report = await world.ends(environment_id, "running")
            assert report.data["cluster"] == cluster
            assert report.data["runtime"] == ("local" if cluster == "default" else "kubernetes")
        assert world.pod(world.eu, eu) is not None
        assert world.pod(world.us, us) is not None
        assert world.pod(world.us, eu) is None
        counted = {each["name"]: each["environments"] for each in await world.call("GET", API)}
        assert counted == {"default": 1, "eu-1": 1, "us-1": 1}
        await world.say(EnvironmentStopRequested, eu, 2, "eu")
        await world.ends(eu, "stopped")
        # Where it is is where its files are, whatever region it names now.
        await world.say(EnvironmentStartRequested, eu, 3, "us")
        assert (await world.ends(eu, "running", times=2)).data["cluster"] == "eu-1"
        await world.say(EnvironmentDeleteRequested, eu, 4, "us")
        await world.ends(eu, "deleted")
        assert leftovers(world.eu, WorkspaceRef(eu, f"user-{eu}")) == []

    async def test_a_region_that_is_not_there_is_an_error_that_names_the_others(self, world: World) -> None:
        failed = await world.ends(await world.create("mars"), "failed")
        assert failed.data["reason"] == "RegionUnknown"
        assert "eu, local, us" in failed.data["message"]

    async def test_a_pod_that_ends_by_itself_is_noticed_in_a_cluster_that_came_later(self, world: World) -> None:
        eu = await world.create("eu")
        await world.ends(eu, "running")
        pod = world.pod(world.eu, eu)
        assert pod is not None
        world.eu.evict(pod["metadata"]["namespace"], pod["metadata"]["name"])
        reports = await world.envs.reports(eu, "running", times=2)
        assert "lost" in [name_of(report) for report in reports]


class TestAway:
    async def test_one_that_goes_away_holds_up_its_own_and_recovers_by_itself(self, world: World) -> None:
        eu, us = await world.create("eu"), await world.create("us")
        await world.ends(eu, "running")
        await world.ends(us, "running")
        await world.eu.hang_up()
        away = (await world.story("eu-1", "health_changed"))[-1]
        assert (away.data["health"], away.data["reason"]) == ("unreachable", "ClusterUnreachable")
        await world.regions_become(eu="unavailable", us="available", local="available")
        waiting, other = await world.create("eu"), await world.create("us")
        assert (await world.ends(other, "running")).data["cluster"] == "us-1"
        for environment_id in (eu, waiting):
            delayed = await world.ends(environment_id, "delayed")
            assert delayed.data["reason"] == "ClusterUnreachable"
            assert "cannot be reached" in delayed.data["message"]
        asked = await world.call("GET", f"{API}/eu-1/health")
        assert (asked["health"], asked["status"]) == ("unreachable", "active")
        assert (await world.http.get("/health/ready")).status_code == 200
        await world.eu.listen()
        back = (await world.story("eu-1", "health_changed", times=2))[-1]
        assert (back.data["health"], back.data["reason"], back.data["message"]) == ("healthy", None, None)
        assert (await world.ends(waiting, "running")).data["cluster"] == "eu-1"
        # The one that ran all the time says so again, and was neither lost nor failed.
        told = await world.envs.reports(eu, "running", times=2)
        assert [name_of(report) for report in told] == ["provisioning", "running", "delayed", "running"]
        assert [name_of(report) for report in await world.envs.reports(us, "running")] == ["provisioning", "running"]
        await world.regions_become(eu="available")

    async def test_refused_credentials_are_told_and_new_ones_used_without_a_restart(self, world: World) -> None:
        eu = await world.create("eu")
        await world.ends(eu, "running")
        world.eu.access.add_user("operator", "another-token")
        world.eu.access.revoke("admin")
        away = (await world.story("eu-1", "health_changed"))[-1]
        assert away.data["reason"] == "ClusterUnauthorized"
        kubeconfig = world.eu.kubeconfig_for("operator", "another-token")
        await world.call("PATCH", f"{API}/eu-1", json={"kubeconfig": kubeconfig})
        told = await world.story("eu-1", "health_changed", times=2)
        assert [name_of(event) for event in told] == ["registered", "health_changed", "updated", "health_changed"]
        await world.say(EnvironmentStopRequested, eu, 2, "eu")
        await world.ends(eu, "stopped")


class TestEnd:
    async def test_a_drained_one_keeps_what_it_has_and_takes_nothing_new(self, world: World) -> None:
        eu = await world.create("eu")
        await world.ends(eu, "running")
        await world.call("POST", f"{API}/eu-1/drain")
        await world.regions_become(eu="unavailable")
        new = await world.create("eu")
        await world.say(EnvironmentStopRequested, eu, 2, "eu")
        await world.ends(eu, "stopped")
        await world.say(EnvironmentStartRequested, eu, 3, "eu")
        await world.ends(eu, "running", times=2)
        delayed = await world.ends(new, "delayed")
        assert delayed.data["reason"] == "RegionDraining"
        await world.call("PATCH", f"{API}/eu-1", json={"status": "active"})
        assert (await world.ends(new, "running")).data["cluster"] == "eu-1"

    async def test_one_in_use_is_removed_by_force_only_and_its_environments_say_so(self, world: World) -> None:
        eu, doomed = await world.create("eu"), await world.create("eu")
        await world.ends(eu, "running")
        await world.ends(doomed, "running")
        await world.eu.hang_up()
        await world.story("eu-1", "health_changed")
        await world.say(EnvironmentDeleteRequested, doomed, 2, "eu")
        await world.ends(doomed, "delayed")
        refused = await world.call("DELETE", f"{API}/eu-1", 409)
        assert refused["code"] == "cluster_in_use"
        assert refused["detail"].startswith("2 environments live")
        assert (await world.call("GET", f"{API}/eu-1"))["status"] == "draining"
        await world.call("DELETE", f"{API}/eu-1?force=true", 204)
        failed = await world.ends(eu, "failed")
        assert failed.data["reason"] == "ClusterRemoved"
        assert "out of reach" in failed.data["message"]
        await world.ends(doomed, "deleted")
        await world.say(EnvironmentDeleteRequested, eu, 2, "eu")
        await world.ends(eu, "deleted")
        assert "eu" not in await world.regions()
        gone = (await world.story("eu-1", "removed"))[-1]
        assert gone.data.get("connection_sealed") is None


class TestSecrets:
    async def test_credentials_travel_sealed_and_show_nowhere(
        self, capsys: pytest.CaptureFixture[str], swift: OrchestratorSettings, world: World
    ) -> None:
        world.us.access.add_user("terminal", "the-terminals-token")
        terminal = world.us.kubeconfig_for("terminal", "the-terminals-token")
        body = {"kubeconfig": world.us.kubeconfig, "terminal_kubeconfig": terminal, "storage_class": "immediate"}
        await world.call("PATCH", f"{API}/us-1", json=body)
        await world.eu.hang_up()
        await world.story("eu-1", "health_changed")
        for path in (API, f"{API}/us-1", f"{API}/eu-1/health"):
            await world.call("GET", path)
        await world.ends(await world.create("us"), "running")
        registered, updated = await world.story("us-1", "updated")
        sealer = Sealer(swift.secret_key.get_secret_value(), CLUSTER_SEAL)

        def opened(event: Event) -> ClusterConnection:
            return ClusterConnection.model_validate_json(sealer.open(event.data["connection_sealed"]))

        assert opened(registered).kubeconfig == world.us.kubeconfig
        assert opened(updated) == ClusterConnection(kubeconfig=terminal, storage_class="immediate")
        assert registered.actor not in {None, "orchestrator"}
        last = (await world.envs.jetstream.stream_info(EVENTS_STREAM)).state.last_seq
        events = [await world.envs.jetstream.get_msg(EVENTS_STREAM, number) for number in range(1, last + 1)]
        logs = capsys.readouterr()
        assert "cluster health" in logs.err
        secrets = [world.eu.token, world.us.token, "the-terminals-token", "'contexts'", '"contexts"']
        readable = [*(str(event.data) for event in events), *world.answers, logs.err, logs.out]
        assert [secret for secret in secrets if any(secret in text for text in readable)] == []
        sealed = [registered.data["connection_sealed"], updated.data["connection_sealed"]]
        assert [text for text in sealed if any(text in said for said in (*world.answers, logs.err, logs.out))] == []


class TestReplicas:
    async def test_all_work_with_what_one_was_told_and_one_that_starts_finds_it(
        self, swift: OrchestratorSettings, issuer: TestIssuer, envs: Envs, world: World
    ) -> None:
        default = FakeRuntime()
        async with running_app(create_app(swift, keys=issuer, runtime=default)) as http:
            second = World(http, issuer, envs, [world.eu, world.us])
            assert (await second.regions()).keys() == {"eu", "local", "us"}
            await world.call("PATCH", f"{API}/us-1", json={"region": "asia"})
            await second.regions_become(asia="available")
            made = [await world.create("asia") for _ in range(4)]
            for environment_id in made:
                reports = await world.envs.reports(environment_id, "running")
                assert [name_of(report) for report in reports] == ["provisioning", "running"]
            await world.us.hang_up()
            await second.regions_become(asia="unavailable")
            await world.us.listen()
            await second.regions_become(asia="available")
        told = await world.story("us-1", "health_changed", times=2)
        assert [name_of(event) for event in told] == ["registered", "updated", "health_changed", "health_changed"]
