"""Which driver a workspace is reached by, as the read model of clusters changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from libs.common.contracts.clusters import DEFAULT_CLUSTER, ClusterHealth, ClusterStatus
from libs.common.contracts.events import EventData
from libs.runtime.fleet import Fleet, FleetExec
from libs.runtime.port import ExecRuntime, ExecStream, RuntimeUnavailableError, WorkspaceRef
from services.terminal.domain import Cluster
from services.terminal.service.clusters import ClusterDrivers
from tests.fakes.exec_runtime import HostExecRuntime

THERE = Cluster("there", ClusterStatus.ACTIVE, ClusterHealth.HEALTHY, None, "sealed-1")


class KnownClusters:
    """The read model, in memory. `broken`: its database is away."""

    def __init__(self) -> None:
        self.known: dict[str, Cluster] = {}
        self.looks: list[str] = []
        self.broken = False

    def tell(self, cluster: Cluster) -> None:
        self.known[cluster.id] = cluster

    async def find(self, cluster_id: str) -> Cluster | None:
        self.looks.append(cluster_id)
        if self.broken:
            raise ConnectionError("no database")
        return self.known.get(cluster_id)

    async def active_ids(self) -> Sequence[str]:
        return [cluster.id for cluster in self.known.values() if cluster.status is ClusterStatus.ACTIVE]

    async def apply(self, data: EventData) -> None:
        raise NotImplementedError


class Machines:
    """What drivers are made of: the sealed connection, None for `default`, names the machine."""

    def __init__(self, *, fresh_seconds: float = 0.0) -> None:
        self.clusters = KnownClusters()
        self.made: dict[str | None, HostExecRuntime] = {}
        self.fleet: Fleet[ExecRuntime] = Fleet()
        self.drivers = ClusterDrivers(self.fleet, self.clusters, self._make, fresh_seconds=fresh_seconds)
        self.runtime = FleetExec(self.fleet, self.drivers.refresh)

    def _make(self, cluster_id: str, sealed: str | None) -> ExecRuntime:
        if sealed == "broken-seal":
            raise RuntimeUnavailableError("sealed with another key")
        assert (cluster_id == DEFAULT_CLUSTER) == (sealed is None)
        return self.made.setdefault(sealed, HostExecRuntime())

    @property
    def default(self) -> HostExecRuntime:
        return self.made[None]

    def count(self, sealed: str | None) -> int:
        """Processes started on this machine."""
        return len(self.made[sealed].streams) if sealed in self.made else 0

    async def cat(self, cluster: str) -> ExecStream:
        return await self.runtime.exec(WorkspaceRef("e", "u", cluster), ["/bin/sh", "-c", "stty -echo; exec cat"])


@pytest.fixture
async def machines() -> AsyncIterator[Machines]:
    machines = Machines()
    yield machines
    await machines.runtime.close()


async def refusal(machines: Machines, cluster: str) -> RuntimeUnavailableError:
    with pytest.raises(RuntimeUnavailableError) as caught:
        await machines.cat(cluster)
    return caught.value


async def works(stream: ExecStream) -> bool:
    await stream.write(b"still here\n")
    said = b""
    while b"still here" not in said:
        chunk = await stream.read()
        if not chunk:
            return False
        said += chunk
    return True


class TestRouting:
    async def test_default_needs_no_event(self, machines: Machines) -> None:
        await machines.cat(DEFAULT_CLUSTER)
        assert machines.count(None) == 1

    async def test_another_cluster_is_reached_with_its_own_connection(self, machines: Machines) -> None:
        machines.clusters.tell(THERE)
        await machines.cat("there")
        assert (machines.count(None), machines.count("sealed-1")) == (0, 1)

    async def test_one_that_is_not_known_yet_is_unavailable_until_it_is(self, machines: Machines) -> None:
        error = await refusal(machines, "there")
        assert (error.reason, "there" in str(error)) == ("ClusterUnknown", True)
        machines.clusters.tell(THERE)
        await machines.cat("there")
        assert machines.count("sealed-1") == 1

    async def test_a_draining_one_goes_on(self, machines: Machines) -> None:
        machines.clusters.tell(replace(THERE, status=ClusterStatus.DRAINING))
        assert await works(await machines.cat("there"))

    async def test_an_event_about_default_does_not_take_its_driver_away(self, machines: Machines) -> None:
        machines.clusters.tell(replace(THERE, id=DEFAULT_CLUSTER, connection_sealed=None))
        await machines.cat(DEFAULT_CLUSTER)
        assert machines.count(None) == 1


class TestChanges:
    async def test_a_removed_one_is_refused_and_what_runs_there_goes_on(self, machines: Machines) -> None:
        machines.clusters.tell(THERE)
        stream = await machines.cat("there")
        # Unreachable as well: that it is gone for good says more.
        gone = replace(THERE, status=ClusterStatus.REMOVED, health=ClusterHealth.UNREACHABLE, connection_sealed=None)
        machines.clusters.tell(gone)
        error = await refusal(machines, "there")
        assert (error.reason, str(error)) == ("ClusterRemoved", "The cluster there was removed.")
        assert "there" not in machines.fleet
        assert await works(stream)

    async def test_one_that_comes_back_is_used_again(self, machines: Machines) -> None:
        machines.clusters.tell(replace(THERE, status=ClusterStatus.REMOVED, connection_sealed=None))
        await refusal(machines, "there")
        machines.clusters.tell(THERE)
        assert await works(await machines.cat("there"))

    @pytest.mark.parametrize("cluster", ["there", DEFAULT_CLUSTER])
    async def test_one_that_gives_no_answer_is_not_asked_but_what_runs_there_goes_on(
        self, machines: Machines, cluster: str
    ) -> None:
        told = replace(THERE, id=cluster, connection_sealed=None if cluster == DEFAULT_CLUSTER else "sealed-1")
        machines.clusters.tell(told)
        stream = await machines.cat(cluster)
        machines.clusters.tell(replace(told, health=ClusterHealth.UNREACHABLE, message="connection refused"))
        error = await refusal(machines, cluster)
        assert error.reason == "ClusterUnreachable"
        assert str(error) == f"The cluster {cluster} cannot be reached: connection refused"
        assert machines.count(told.connection_sealed) == 1
        assert await works(stream)
        machines.clusters.tell(told)
        assert await works(await machines.cat(cluster))

    async def test_new_credentials_are_used_from_now_on_and_old_streams_go_on(self, machines: Machines) -> None:
        machines.clusters.tell(THERE)
        stream = await machines.cat("there")
        machines.clusters.tell(replace(THERE, connection_sealed="sealed-2"))
        await machines.cat("there")
        assert (machines.count("sealed-1"), machines.count("sealed-2")) == (1, 1)
        assert await works(stream)

    async def test_credentials_that_cannot_be_read_are_told_and_end_nothing(self, machines: Machines) -> None:
        machines.clusters.tell(THERE)
        stream = await machines.cat("there")
        machines.clusters.tell(replace(THERE, connection_sealed="broken-seal"))
        assert str(await refusal(machines, "there")) == "sealed with another key"
        assert await works(stream)
        machines.clusters.tell(replace(THERE, connection_sealed="sealed-2"))
        assert await works(await machines.cat("there"))


class TestLooking:
    async def test_the_read_model_is_not_asked_for_every_shell(self) -> None:
        machines = Machines(fresh_seconds=3600)
        machines.clusters.tell(THERE)
        for _ in range(3):
            await machines.cat("there")
            await machines.cat(DEFAULT_CLUSTER)
        assert sorted(machines.clusters.looks) == [DEFAULT_CLUSTER, "there"]
        await machines.runtime.close()

    async def test_a_refusal_holds_for_as_long(self) -> None:
        machines = Machines(fresh_seconds=3600)
        machines.clusters.tell(replace(THERE, health=ClusterHealth.UNREACHABLE))
        for _ in range(2):
            assert (await refusal(machines, "there")).reason == "ClusterUnreachable"
        assert machines.clusters.looks == ["there"]

    async def test_without_the_read_model_what_is_known_is_used(self, machines: Machines) -> None:
        machines.clusters.tell(THERE)
        await machines.cat("there")
        machines.clusters.broken = True
        await machines.cat("there")
        await machines.cat(DEFAULT_CLUSTER)
        assert (machines.count("sealed-1"), machines.count(None)) == (2, 1)
        assert "Nothing is known" in str(await refusal(machines, "elsewhere"))


class TestReadiness:
    async def test_default_alone_is_enough(self, machines: Machines) -> None:
        machines.drivers.hear()
        await machines.drivers.probe()

    async def test_so_is_any_other(self, machines: Machines) -> None:
        machines.default.away = True
        machines.drivers.hear()
        machines.clusters.tell(replace(THERE, id="away", health=ClusterHealth.UNREACHABLE))
        machines.clusters.tell(replace(THERE, id="garbled", connection_sealed="broken-seal"))
        machines.clusters.tell(THERE)
        await machines.drivers.probe()

    async def test_without_any_it_says_what_default_lacks(self, machines: Machines) -> None:
        machines.default.away = True
        machines.drivers.hear()
        machines.clusters.tell(replace(THERE, health=ClusterHealth.UNREACHABLE))
        # A shell can be had there, but nobody is sent there any more.
        machines.clusters.tell(replace(THERE, id="draining", status=ClusterStatus.DRAINING))
        with pytest.raises(RuntimeUnavailableError, match="The fake runtime is away"):
            await machines.drivers.probe()
        machines.default.away = False
        await machines.drivers.probe()

    async def test_once_it_worked_a_cluster_that_goes_away_takes_nothing_along(self, machines: Machines) -> None:
        machines.drivers.hear()
        await machines.drivers.probe()
        machines.default.away = True
        machines.clusters.tell(replace(THERE, id=DEFAULT_CLUSTER, health=ClusterHealth.UNREACHABLE))
        await machines.drivers.probe()

    async def test_before_events_are_heard_it_does_not_hold_up_the_start(self, machines: Machines) -> None:
        machines.default.away = True
        await machines.drivers.probe()
        machines.drivers.hear()
        with pytest.raises(RuntimeUnavailableError):
            await machines.drivers.probe()
