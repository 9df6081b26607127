"""What every `EnvironmentStore` does, run on the one in memory and on the real one: the fake tells the truth."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from libs.common.contracts.environments import DesiredState
from libs.common.contracts.events import (
    EnvironmentDeleteRequested,
    EnvironmentRestartRequested,
    EnvironmentStartRequested,
    EnvironmentStopRequested,
    EnvironmentWish,
    RuntimeProvisioning,
)
from services.orchestrator.domain import steps
from services.orchestrator.domain.model import Environment, Limits, Said, WishCause
from services.orchestrator.ports import EnvironmentStore
from tests.unit.orchestrator.memory import START, an_update, template, wish

LIMITS = Limits()
CAUSE = WishCause("request-1", "event-1", {"traceparent": "00-x"})


def later(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


async def take(
    store: EnvironmentStore, holder: str = "a", at: float = 0.0, *, only_if_due: bool = False
) -> Environment:
    environment = await try_to_take(store, holder, at, only_if_due=only_if_due)
    assert environment is not None
    return environment


async def try_to_take(
    store: EnvironmentStore, holder: str = "a", at: float = 0.0, *, only_if_due: bool = False
) -> Environment | None:
    return await store.acquire("env1", holder, later(at), later(at + 15), only_if_due=only_if_due)


class StoreContract:
    """Subclasses give the fixture `store`."""

    async def test_a_first_wish_makes_an_environment_that_is_due(self, store: EnvironmentStore) -> None:
        spec = template(variables_sealed="sealed", startup_command="echo $HOME", web_port=8080)
        assert await store.accept(wish(spec=spec), CAUSE, START)
        assert list(await store.due(START, 10)) == ["env1"]
        environment = await take(store)
        assert (environment.desired, environment.generation, environment.version) == (DesiredState.RUNNING, 1, 1)
        assert environment.spec == spec
        assert environment.cause == CAUSE
        assert environment.said is Said.NOTHING

    async def test_an_older_or_repeated_wish_is_no_news(self, store: EnvironmentStore) -> None:
        assert await store.accept(wish(EnvironmentStopRequested, generation=2), CAUSE, START)
        assert not await store.accept(wish(EnvironmentStopRequested, generation=2), CAUSE, START)
        assert not await store.accept(wish(generation=1), CAUSE, START)
        assert (await take(store)).desired is DesiredState.STOPPED

    async def test_a_deletion_wins_for_ever(self, store: EnvironmentStore) -> None:
        await store.accept(wish(EnvironmentStartRequested, generation=3), CAUSE, START)
        assert await store.accept(wish(EnvironmentDeleteRequested, generation=2), CAUSE, START)
        assert not await store.accept(wish(EnvironmentStartRequested, generation=4), CAUSE, START)
        assert not await store.accept(an_update(5), None, START)
        assert (await take(store)).desired is DesiredState.DELETED
        assert await store.accept(wish(EnvironmentDeleteRequested, generation=6), CAUSE, START)

    async def test_an_update_changes_the_spec_and_keeps_the_cause(self, store: EnvironmentStore) -> None:
        await store.accept(wish(), CAUSE, START)
        assert await store.accept(an_update(2, name="other"), None, START)
        environment = await take(store)
        assert (environment.name, environment.generation, environment.cause) == ("other", 1, CAUSE)

    async def test_a_lease_is_one_replicas_until_it_expires(self, store: EnvironmentStore) -> None:
        await store.accept(wish(), CAUSE, START)
        await take(store, "a")
        assert await try_to_take(store, "b", at=14) is None
        assert list(await store.due(later(14), 10)) == []
        assert list(await store.due(later(15), 10)) == ["env1"]
        assert await try_to_take(store, "b", at=15) is not None
        assert await store.renew("env1", "a", later(30)) is None
        assert await store.reload("env1", "a") is None

    async def test_renewing_tells_the_wish_as_it_is_now(self, store: EnvironmentStore) -> None:
        await store.accept(wish(), CAUSE, START)
        await take(store)
        assert await store.renew("env1", "a", later(20)) == (DesiredState.RUNNING, 1)
        await store.accept(wish(EnvironmentStopRequested, generation=2), CAUSE, START)
        assert await store.renew("env1", "a", later(20)) == (DesiredState.STOPPED, 2)
        assert await try_to_take(store, "b", at=19) is None

    async def test_releasing_gives_the_lease_back_once(self, store: EnvironmentStore) -> None:
        await store.accept(wish(), CAUSE, START)
        await take(store, "a")
        await store.release("env1", "a")
        await take(store, "b")
        await store.release("env1", "a")
        assert await try_to_take(store, "c") is None

    async def test_saving_stores_state_and_next_look(self, store: EnvironmentStore) -> None:
        await store.accept(wish(), CAUSE, START)
        announced = steps.announce(await take(store), START, LIMITS)
        saved = await store.save("a", announced, START, "local")
        assert saved is not None
        assert saved.said is Said.PROVISIONING
        assert saved.progress == announced.environment.progress
        assert announced.report is not None
        assert announced.report.kind is RuntimeProvisioning
        saved = await store.save("a", steps.confirm(saved, START, LIMITS), START, "local")
        assert saved is not None
        assert list(await store.due(later(29), 10)) == []
        assert list(await store.due(later(30), 10)) == ["env1"]
        assert await try_to_take(store, "b", only_if_due=True) is None
        assert (await take(store, "b")).reported.at == START

    async def test_nothing_is_saved_without_the_lease(self, store: EnvironmentStore) -> None:
        await store.accept(wish(), CAUSE, START)
        mine = await take(store, "a")
        await take(store, "b", at=20)
        assert await store.save("a", steps.announce(mine, START, LIMITS), START, "local") is None
        assert (await store.reload("env1", "b")) == mine

    @pytest.mark.parametrize("kind", [EnvironmentStopRequested, EnvironmentRestartRequested])
    async def test_nothing_is_saved_for_a_wish_that_has_changed(
        self, store: EnvironmentStore, kind: type[EnvironmentWish]
    ) -> None:
        await store.accept(wish(), CAUSE, START)
        old = await take(store)
        await store.accept(wish(kind, generation=2), CAUSE, START)
        assert await store.save("a", steps.confirm(old, START, LIMITS), START, "local") is None
        now = await store.reload("env1", "a")
        assert now is not None
        assert now.said is Said.NOTHING

    async def test_an_update_while_working_is_kept(self, store: EnvironmentStore) -> None:
        await store.accept(wish(), CAUSE, START)
        working = await take(store)
        await store.accept(an_update(2, name="other"), None, START)
        announced = await store.save("a", steps.announce(working, START, LIMITS), START, "local")
        assert announced is not None
        assert (announced.name, announced.version, announced.said) == ("other", 2, Said.PROVISIONING)
        assert await store.save("a", steps.confirm(working, START, LIMITS), START, "local") is not None
        settled = await take(store, "b")
        assert (settled.name, settled.version, settled.said) == ("other", 2, Said.RUNNING)

    async def test_a_tombstone_holds_no_secret_and_needs_no_look(self, store: EnvironmentStore) -> None:
        spec = template(variables_sealed="sealed")
        await store.accept(wish(EnvironmentDeleteRequested, spec=spec), CAUSE, START)
        await store.save("a", steps.deleted(await take(store), START, LIMITS), START, "local")
        assert await store.buried(["env1", "other"]) == {"env1": True}
        assert list(await store.living()) == ["env1"]
        tombstone = await take(store, "b", at=30, only_if_due=True)
        assert tombstone.spec.variables_sealed is None
        await store.save("b", steps.rest(tombstone, later(30), LIMITS), later(30), "local")
        assert list(await store.living()) == []
        assert list(await store.due(later(10_000), 10)) == []

    async def test_one_replica_samples_what_runs(self, store: EnvironmentStore) -> None:
        await store.accept(wish(), CAUSE, START)
        assert list(await store.unsampled(START, 10)) == []
        await store.save("a", steps.confirm(await take(store), START, LIMITS), START, "local")
        assert [environment.id for environment in await store.unsampled(START, 10)] == ["env1"]
        assert await store.claim_sample("env1", later(-5), START)
        assert not await store.claim_sample("env1", later(-5), START)
        assert list(await store.unsampled(later(-1), 10)) == []
        assert await store.claim_sample("env1", START, later(5))

    async def test_what_ended_or_is_to_end_is_not_sampled(self, store: EnvironmentStore) -> None:
        await store.accept(wish(), CAUSE, START)
        await store.save("a", steps.confirm(await take(store), START, LIMITS), START, "local")
        lost = steps.lose(await take(store, "b"), None, START, LIMITS, START)
        await store.save("b", lost, START, "local")
        assert list(await store.unsampled(later(100), 10)) == []
        await store.save("b", steps.confirm(lost.environment, START, LIMITS), START, "local")
        assert [environment.id for environment in await store.unsampled(later(100), 10)] == ["env1"]
        await store.accept(wish(EnvironmentStopRequested, generation=2), CAUSE, START)
        assert list(await store.unsampled(later(100), 10)) == []
