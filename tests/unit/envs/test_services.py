"""Use cases on fakes: races, conflicts, plans, usage."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from libs.common.contracts.clusters import ClusterHealth, ClusterStatus, ClusterUpdated
from libs.common.contracts.environments import EnvironmentStatus as Status
from libs.common.contracts.events import (
    EnvironmentCreated,
    EnvironmentRestartRequested,
    Event,
    RuntimeLost,
    RuntimeRunning,
)
from libs.common.contracts.identity import Plan
from libs.common.contracts.telemetry import UsageSample
from libs.common.contracts.users import UserPlanChanged
from libs.common.errors import TemporaryError
from services.envs.entities import Command, Environment
from services.envs.errors import (
    AccountInactiveError,
    DuplicateNameError,
    EditConflictError,
    EnvironmentNotFoundError,
    QuotaExceededError,
    UnknownRegionError,
    UnknownTemplateError,
)
from services.envs.plans import Place, free_slot
from services.envs.service.accounts import AccountService
from services.envs.service.environments import Changes, EnvironmentService, NewEnvironment
from services.envs.service.regions import RegionService
from services.envs.service.reports import ReportService
from services.envs.service.templates import TemplateService
from services.envs.service.usage import MAX_POINTS, UsageService
from tests.fakes.envs import FakeAccounts, FakeClusters, FakeEnvironments, FakeHistory, FakeTemplates, PlainSeal
from tests.unit.envs.makers import NOW, a_principal, an_environment

REQUEST = NewEnvironment(name="mine", template="python")


@pytest.fixture
def store() -> FakeEnvironments:
    return FakeEnvironments()


@pytest.fixture
def accounts() -> FakeAccounts:
    return FakeAccounts()


@pytest.fixture
async def templates(store: FakeEnvironments) -> TemplateService:
    templates = TemplateService(FakeTemplates(), store, image_prefix="images", clock=lambda: NOW)
    await templates.seed()
    return templates


@pytest.fixture
def regions() -> RegionService:
    return RegionService(FakeClusters())


@pytest.fixture
def service(
    store: FakeEnvironments, templates: TemplateService, accounts: FakeAccounts, regions: RegionService
) -> EnvironmentService:
    return EnvironmentService(
        store, templates, AccountService(accounts), regions, PlainSeal(), verified_only=False, clock=lambda: NOW
    )


async def user_state(accounts: FakeAccounts, plan: Plan, version: int, *, active: bool = True) -> None:
    await accounts.take(
        UserPlanChanged(user_id="u" * 32, username="u", plan=plan, is_active=active, is_verified=True, version=version)
    )


async def a_cluster(regions: RegionService, cluster_id: str, region: str, status: ClusterStatus) -> None:
    state = ClusterUpdated(
        cluster_id=cluster_id,
        region=region,
        runtime="kubernetes",
        is_default=False,
        status=status,
        health=ClusterHealth.UNREACHABLE,
        version=1,
    )
    await regions.keep(state)


class TestCreate:
    async def test_seals_variables_over_those_of_the_template(
        self, service: EnvironmentService, store: FakeEnvironments
    ) -> None:
        request = replace(REQUEST, variables={"PYTHONUNBUFFERED": "0", "A": "b"})
        environment = await service.create(a_principal(), request)
        assert environment.variables_sealed == 'sealed:{"PYTHONUNBUFFERED":"0","A":"b"}'
        assert (environment.image, environment.slot) == ("images/python:latest", free_slot(Plan.PRO, REQUEST.name, []))
        assert [event.type for event in store.events] == ["devpocket.env.created.v1"]

    async def test_a_lost_race_takes_the_next_slot(self, service: EnvironmentService, store: FakeEnvironments) -> None:
        taken: list[Place] = []
        for number in range(3):
            taken.append(Place(free_slot(Plan.PRO, REQUEST.name, taken), f"thief-{number}"))
        store.thefts = [an_environment(id=f"{p.slot}" * 32, name=p.name, slot=p.slot) for p in taken]
        assert (await service.create(a_principal(), REQUEST)).slot == free_slot(Plan.PRO, REQUEST.name, taken)

    async def test_a_write_that_was_repeated_on_the_way_is_no_duplicate(
        self, service: EnvironmentService, store: FakeEnvironments, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        insert = store.insert

        async def insert_twice(environment: Environment, events: Sequence[Event]) -> None:
            await insert(environment, events)
            await insert(environment, events)

        monkeypatch.setattr(store, "insert", insert_twice)
        environment = await service.create(a_principal(), REQUEST)
        assert list(store.found) == [environment.id]
        assert len(store.events) == 1

    async def test_a_lost_race_for_the_last_slot_is_over_quota(
        self, service: EnvironmentService, store: FakeEnvironments
    ) -> None:
        store.thefts = [an_environment(name="thief")]
        with pytest.raises(QuotaExceededError):
            await service.create(a_principal(Plan.FREE), REQUEST)

    async def test_a_lost_race_for_the_name_is_a_duplicate(
        self, service: EnvironmentService, store: FakeEnvironments
    ) -> None:
        store.thefts = [an_environment(name="mine", slot=5)]
        with pytest.raises(DuplicateNameError):
            await service.create(a_principal(), REQUEST)

    async def test_the_read_model_wins_over_the_token(
        self, service: EnvironmentService, accounts: FakeAccounts
    ) -> None:
        await user_state(accounts, Plan.FREE, 2)
        await user_state(accounts, Plan.PRO, 1)
        await service.create(a_principal(Plan.PRO), REQUEST)
        with pytest.raises(QuotaExceededError, match="free"):
            await service.create(a_principal(Plan.PRO), replace(REQUEST, name="two"))

    async def test_an_unknown_template_lists_what_there_is(self, service: EnvironmentService) -> None:
        with pytest.raises(UnknownTemplateError, match="golang, nodejs, python, rust, ubuntu"):
            await service.create(a_principal(), replace(REQUEST, template="cobol"))

    async def test_the_wish_carries_image_policy_command_and_port_of_the_template(
        self, service: EnvironmentService, templates: TemplateService, store: FakeEnvironments
    ) -> None:
        changed = {"docker_image": "py:3", "image_pull_policy": "Never", "startup_commands": ("a", "b")}
        await templates.change("python", {**changed, "default_port": 5000})
        await service.create(a_principal(), REQUEST)
        wish = store.events[-1].payload()
        assert isinstance(wish, EnvironmentCreated)
        spec = wish.spec
        assert (spec.image, spec.image_pull_policy, spec.startup_command, spec.web_port) == (
            "py:3",
            "Never",
            "a && b",
            5000,
        )

    async def test_what_exists_keeps_its_image_at_a_restart(
        self, service: EnvironmentService, templates: TemplateService, store: FakeEnvironments
    ) -> None:
        created = await service.create(a_principal(), REQUEST)
        store.found[created.id] = replace(created, status=Status.RUNNING)
        await templates.change("python", {"docker_image": "py:4", "image_pull_policy": "Always"})
        await service.command(a_principal(), created.id, Command.RESTART)
        wish = next(data for event in store.events if isinstance(data := event.payload(), EnvironmentRestartRequested))
        assert (wish.spec.image, wish.spec.image_pull_policy) == ("images/python:latest", None)

    @pytest.mark.parametrize(("wanted", "status"), [("europe", "active"), ("asia", "draining")])
    async def test_a_region_needs_a_cluster_that_is_there(
        self, service: EnvironmentService, regions: RegionService, wanted: str, status: str
    ) -> None:
        await service.create(a_principal(), replace(REQUEST, name="early", region="moon"))
        await a_cluster(regions, "c-1", wanted, ClusterStatus(status))
        await a_cluster(regions, "c-2", "africa", ClusterStatus.REMOVED)
        assert (await service.create(a_principal(), replace(REQUEST, region=wanted))).region == wanted
        assert (await service.create(a_principal(), replace(REQUEST, name="any"))).region is None
        for unknown in ("moon", "africa"):
            with pytest.raises(UnknownRegionError) as caught:
                await service.create(a_principal(), replace(REQUEST, name="lost", region=unknown))
            assert str(caught.value) == f"Unknown region '{unknown}'; there are: {wanted}"


class TestCommands:
    async def test_a_conflict_is_decided_again(self, service: EnvironmentService, store: FakeEnvironments) -> None:
        environment = an_environment(Status.RUNNING)
        store.found[environment.id] = environment
        store.conflicts = 5
        assert (await service.command(a_principal(), environment.id, Command.STOP)).status is Status.STOPPING

    async def test_endless_conflicts_end(self, service: EnvironmentService, store: FakeEnvironments) -> None:
        environment = an_environment(Status.RUNNING)
        store.found[environment.id] = environment
        store.conflicts = 1_000
        with pytest.raises(EditConflictError):
            await service.command(a_principal(), environment.id, Command.STOP)

    async def test_a_stranger_finds_nothing(self, service: EnvironmentService, store: FakeEnvironments) -> None:
        environment = an_environment(Status.RUNNING)
        store.found[environment.id] = environment
        with pytest.raises(EnvironmentNotFoundError):
            await service.command(a_principal(Plan.ADMIN, "x"), environment.id, Command.DELETE)

    async def test_an_inactive_user_can_stop_but_not_start(
        self, service: EnvironmentService, store: FakeEnvironments, accounts: FakeAccounts
    ) -> None:
        environment = an_environment(Status.RUNNING)
        store.found[environment.id] = environment
        await user_state(accounts, Plan.PRO, 1, active=False)
        with pytest.raises(AccountInactiveError):
            await service.command(a_principal(), environment.id, Command.RESTART)
        assert (await service.command(a_principal(), environment.id, Command.STOP)).status is Status.STOPPING

    async def test_a_name_that_is_taken_while_saving_is_a_duplicate(
        self, service: EnvironmentService, store: FakeEnvironments
    ) -> None:
        environment = an_environment(Status.RUNNING)
        store.found = {environment.id: environment, "x": an_environment(id="x", name="other", slot=1)}
        with pytest.raises(DuplicateNameError):
            await service.update(a_principal(), environment.id, Changes(name="other"))


class TestReports:
    async def test_endless_conflicts_are_tried_again_later(self, store: FakeEnvironments) -> None:
        environment = an_environment()
        store.found[environment.id] = environment
        store.conflicts = 1_000
        report = RuntimeRunning(environment_id=environment.id, user_id="u", generation=3, runtime="local")
        with pytest.raises(TemporaryError):
            await ReportService(store).apply(report, 5)

    async def test_a_lost_workspace_does_not_change_the_status(self, store: FakeEnvironments) -> None:
        environment = an_environment(Status.RUNNING)
        store.found[environment.id] = environment
        report = RuntimeLost(environment_id=environment.id, user_id="u", generation=3, runtime="local")
        await ReportService(store).apply(report, 5)
        assert store.found[environment.id] is environment


class TestUsage:
    async def test_history_is_thinned_and_keeps_the_newest(self, store: FakeEnvironments) -> None:
        history = FakeHistory()
        for minutes in range(10_080):
            at = NOW - timedelta(minutes=minutes)
            history.samples.append(
                UsageSample(environment_id="e", sampled_at=at, cpu_millis=minutes, memory_bytes=0, storage_bytes=0)
            )
        points = await UsageService(store, history, clock=lambda: NOW).history("e", 168)
        assert len(points) <= MAX_POINTS
        assert points[-1].sampled_at == NOW
        assert points == sorted(points, key=lambda point: point.sampled_at)

    async def test_a_sample_from_the_future_is_dropped(self, store: FakeEnvironments) -> None:
        environment = an_environment(Status.RUNNING)
        store.found[environment.id] = environment
        history = FakeHistory()
        service = UsageService(store, history, clock=lambda: NOW)
        for ahead in (timedelta(days=1), timedelta(seconds=1)):
            await service.record(
                UsageSample(
                    environment_id=environment.id, sampled_at=NOW + ahead, cpu_millis=1, memory_bytes=1, storage_bytes=1
                )
            )
        assert [sample.sampled_at for sample in history.samples] == [NOW + timedelta(seconds=1)]


class TestTemplates:
    async def test_where_counting_takes_its_time_not_every_list_waits_for_it(
        self, templates: TemplateService, store: FakeEnvironments, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counted: list[str] = []
        seconds = itertools.count()

        async def slowly(name: str) -> int:
            counted.append(name)
            return 3

        monkeypatch.setattr(store, "count_by_template", slowly)
        service = TemplateService(
            FakeTemplates(), store, image_prefix="images", clock=lambda: NOW, timer=lambda: next(seconds)
        )
        await service.seed()
        for _ in range(3):
            listed = await service.listed(category=None, status=None, sees_deprecated=True)
            assert {count for _, count in listed} == {3}
        assert len(counted) == len(set(counted)) == len(listed)
