"""Administration of clusters, and the store in memory that these tests stand on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from libs.common.contracts.clusters import ClusterHealth, ClusterStatus
from libs.common.contracts.events import EnvironmentDeleteRequested
from libs.runtime.port import RuntimeUnavailableError, WorkspaceRejectedError
from services.orchestrator.domain import clusters as domain
from services.orchestrator.domain.clusters import ClusterChange, ClusterEdit
from services.orchestrator.errors import (
    ClusterConflictError,
    ClusterExistsError,
    ClusterFixedError,
    ClusterInUseError,
    ClusterInvalidError,
    ClusterNotFoundError,
    ClusterUnusableError,
)
from services.orchestrator.service import clusters as service
from services.orchestrator.service.clusters import ClusterAdministration, NewCluster
from tests.unit.orchestrator.cluster_store_contract import ClusterStoreContract
from tests.unit.orchestrator.memory import START, FakeClock, MemoryStore, wish
from tests.unit.orchestrator.memory_clusters import SECRET, MemoryClusters, MemoryConnector, a_cluster, a_connection

AWAY = "https://away"
DEFAULT = a_cluster("default", "home", connection_sealed=None, terminal_sealed=None)


class TestMemoryClusters(ClusterStoreContract):
    @pytest.fixture
    def clusters(self) -> MemoryClusters:
        return MemoryClusters()


class Desk:
    """An administrator's desk; the cluster `default` is there, and the server AWAY does not answer."""

    def __init__(self, store: MemoryStore, clock: FakeClock) -> None:
        self.environments, self.clock = store, clock
        self.store = MemoryClusters()
        self.store.have(DEFAULT)
        self.connector = MemoryConnector({AWAY: RuntimeUnavailableError("No answer.")})
        self.administration = ClusterAdministration(self.store, store, self.connector, clock)

    async def add(self, name: str = "a", region: str = "eu", server: str = "https://a", **changes: Any) -> None:
        values = {"connection": a_connection(server), **changes}
        await self.administration.add(NewCluster(name, region, **values))

    async def place(self, environment_id: str, cluster: str) -> None:
        await self.environments.accept(wish(environment_id=environment_id), None, START)
        record = self.environments.records[environment_id]
        object.__setattr__(record.environment, "cluster", cluster)


@pytest.fixture
def desk(store: MemoryStore, clock: FakeClock) -> Desk:
    return Desk(store, clock)


class TestAdd:
    async def test_is_tried_out_sealed_and_told(self, desk: Desk) -> None:
        new = NewCluster("A ", "EU", a_connection("https://a"), capacity=5)
        view = await desk.administration.add(new)
        assert (view.cluster.id, view.cluster.region, view.cluster.capacity) == ("a", "eu", 5)
        assert (view.cluster.health, view.cluster.server_version) == (ClusterHealth.HEALTHY, "v1.36.1")
        assert (view.environments, view.is_default) == (0, False)
        assert desk.connector.tried == ["https://a"]
        (event,) = desk.store.events
        assert (event.TYPE, event.is_default, event.version) == ("cluster.registered.v1", False, 1)
        assert event.connection_sealed is not None
        assert desk.connector.connections[event.connection_sealed] == a_connection("https://a")
        assert SECRET not in repr(view) + repr(new) + repr(event)

    async def test_the_terminal_gets_its_own_access_only(self, desk: Desk) -> None:
        await desk.add(terminal=a_connection("https://terminal"))
        assert desk.connector.tried == ["https://a", "https://terminal"]
        told = desk.store.events[0].connection_sealed
        assert told is not None
        assert desk.connector.connections[told] == a_connection("https://terminal")
        stored = desk.store.records["a"]
        assert stored.connection_sealed != stored.terminal_sealed

    @pytest.mark.parametrize("which", ["connection", "terminal"])
    async def test_what_does_not_answer_is_refused_unless_asked_not_to_try(self, desk: Desk, which: str) -> None:
        with pytest.raises(ClusterUnusableError, match=r"cannot be used: No answer\."):
            await desk.add("a", "eu", "https://a", **{which: a_connection(AWAY)})
        assert "a" not in desk.store.records
        new = NewCluster("a", "eu", a_connection(AWAY))
        view = await desk.administration.add(new, verify=False)
        assert (view.cluster.health, view.cluster.takes_new) == (ClusterHealth.UNKNOWN, False)

    @pytest.mark.parametrize(
        "error", [WorkspaceRejectedError("Bad request."), ValueError(SECRET), TypeError(SECRET), TimeoutError()]
    )
    async def test_whatever_goes_wrong_is_a_refusal_without_secrets(self, desk: Desk, error: Exception) -> None:
        desk.connector.trouble[AWAY] = error
        with pytest.raises(ClusterUnusableError) as raised:
            await desk.add(server=AWAY)
        assert SECRET not in str(raised.value)

    async def test_nobody_waits_for_ever(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        async def hang(*_: object) -> str:
            await asyncio.Event().wait()
            return ""

        monkeypatch.setattr(service, "TRY_OUT_TIMEOUT_S", 0.01)
        monkeypatch.setattr(desk.connector, "try_out", hang)
        with pytest.raises(ClusterUnusableError, match="no answer within"):
            await desk.add()

    async def test_a_name_is_given_once(self, desk: Desk) -> None:
        await desk.add()
        for name in ("a", " A", "default"):
            with pytest.raises(ClusterExistsError):
                await desk.add(name)

    @pytest.mark.parametrize("name", ["", "-", "a-", "-a", "a.b", "a b", "a_b", "ä", "a" * 41, "*", ">"])
    async def test_names_and_regions_are_labels(self, desk: Desk, name: str) -> None:
        with pytest.raises(ClusterInvalidError, match="name"):
            await desk.add(name)
        with pytest.raises(ClusterInvalidError, match="region"):
            await desk.add("fine", name)
        await desk.add("b" * 40, "c")

    async def test_of_two_at_once_one_is_told(self, desk: Desk) -> None:
        results = await asyncio.gather(desk.add(), desk.add(), return_exceptions=True)
        assert [type(result) for result in results] == [type(None), ClusterExistsError]
        assert desk.store.told("a") == ["registered"]

    async def test_a_removed_one_may_come_back_as_another(self, desk: Desk) -> None:
        await desk.add(is_default=True)
        await desk.administration.remove("a")
        await desk.add(region="us")
        there = desk.store.records["a"]
        assert (there.region, there.status, there.default_since) == ("us", ClusterStatus.ACTIVE, None)
        assert [event.version for event in desk.store.events] == [1, 2, 3, 4]
        assert desk.store.told("a") == ["registered", "updated", "removed", "registered"]


class TestUpdate:
    async def test_credentials_are_tried_before_they_replace_others(self, desk: Desk) -> None:
        await desk.add()
        before = desk.store.records["a"]
        with pytest.raises(ClusterUnusableError):
            await desk.administration.update("a", ClusterEdit(region="us"), connection=a_connection(AWAY))
        assert desk.store.records["a"] == before
        new = a_connection("https://b", context="other", storage_class="fast")
        await desk.administration.update("a", ClusterEdit(), connection=new)
        after = desk.store.records["a"]
        assert after.connection_sealed is not None
        assert desk.connector.connections[after.connection_sealed] == new
        assert desk.store.events[-1].connection_sealed == after.connection_sealed

    async def test_the_default_moves(self, desk: Desk) -> None:
        await desk.add("a", is_default=True)
        desk.clock.forward(1)
        await desk.add("b")
        view = await desk.administration.update("b", ClusterEdit(is_default=True))
        assert view.is_default
        assert {each.cluster.id: each.is_default for each in await desk.administration.listed()} == {
            "a": False,
            "b": True,
            "default": False,
        }
        await desk.administration.remove("b")
        assert (await desk.administration.get("a")).is_default

    async def test_a_rival_change_is_not_overwritten(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        await desk.add()
        save = desk.store.save
        rivals = [ClusterEdit(capacity=7)]

        async def beaten(change: ClusterChange, *, is_default: bool) -> bool:
            if rivals:
                desk.store.have(domain.edit(desk.store.records["a"], rivals.pop(), START).cluster)
            return await save(change, is_default=is_default)

        monkeypatch.setattr(desk.store, "save", beaten)
        view = await desk.administration.update("a", ClusterEdit(region="us"))
        assert (view.cluster.region, view.cluster.capacity, view.cluster.version) == ("us", 7, 3)

    async def test_one_that_always_loses_is_told_to_try_again(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def never(*_: object, **__: object) -> bool:
            return False

        await desk.add()
        monkeypatch.setattr(desk.store, "save", never)
        with pytest.raises(ClusterConflictError):
            await desk.administration.update("a", ClusterEdit(region="us"))

    async def test_what_changes_nothing_is_told_to_nobody(self, desk: Desk) -> None:
        await desk.add()
        await desk.administration.update("a", ClusterEdit(region="eu"))
        assert desk.store.told("a") == ["registered"]

    async def test_draining_can_be_undone(self, desk: Desk) -> None:
        await desk.add()
        assert not (await desk.administration.drain("a")).cluster.takes_new
        assert not (await desk.administration.drain("a")).cluster.takes_new
        assert (await desk.administration.update("a", ClusterEdit(status=ClusterStatus.ACTIVE))).cluster.takes_new
        assert desk.store.told("a") == ["registered", "updated", "updated"]

    async def test_the_one_of_the_settings_can_be_drained_and_bounded_only(self, desk: Desk) -> None:
        administration = desk.administration
        for refused in (
            administration.update("default", ClusterEdit(region="eu")),
            administration.update("default", ClusterEdit(), connection=a_connection()),
            administration.update("default", ClusterEdit(), terminal=a_connection()),
            administration.remove("default", force=True),
        ):
            with pytest.raises(ClusterFixedError, match="settings"):
                await refused
        assert desk.store.records["default"] == DEFAULT
        assert (await administration.update("default", ClusterEdit(capacity=1))).cluster.capacity == 1
        assert (await administration.drain("default")).cluster.status is ClusterStatus.DRAINING

    async def test_what_is_not_there_is_not_found(self, desk: Desk) -> None:
        desk.store.have(a_cluster("gone", status=ClusterStatus.REMOVED))
        administration = desk.administration
        for name in ("nobody", "gone"):
            for refused in (
                administration.get(name),
                administration.update(name, ClusterEdit()),
                administration.drain(name),
                administration.remove(name, force=True),
            ):
                with pytest.raises(ClusterNotFoundError):
                    await refused
        assert [view.cluster.id for view in await administration.listed()] == ["default"]


class TestRemove:
    async def test_forgets_the_credentials(self, desk: Desk) -> None:
        await desk.add()
        await desk.administration.remove("a")
        gone = desk.store.records["a"]
        assert (gone.is_removed, gone.connection_sealed, gone.terminal_sealed) == (True, None, None)
        assert desk.store.events[-1].connection_sealed is None

    @pytest.mark.parametrize(("many", "words"), [(1, "1 environment lives"), (3, "3 environments live")])
    async def test_one_in_use_is_drained_and_stays(self, desk: Desk, many: int, words: str) -> None:
        await desk.add()
        for number in range(many):
            await desk.place(f"env{number}", "a")
        await desk.place("elsewhere", "default")
        with pytest.raises(ClusterInUseError, match=words):
            await desk.administration.remove("a")
        assert desk.store.records["a"].status is ClusterStatus.DRAINING
        assert desk.store.told("a") == ["registered", "updated"]

    async def test_by_force_its_environments_are_looked_at_at_once(self, desk: Desk) -> None:
        await desk.add()
        await desk.place("env1", "a")
        await desk.environments.accept(wish(EnvironmentDeleteRequested, generation=2), None, START)
        desk.environments.records["env1"].due_at = None
        await desk.place("env2", "a")
        desk.clock.forward(60)
        desk.environments.records["env2"].due_at = desk.clock.now.replace(hour=23)
        await desk.administration.remove("a", force=True)
        assert desk.environments.records["env2"].due_at == desk.clock.now
        assert desk.store.records["a"].is_removed
