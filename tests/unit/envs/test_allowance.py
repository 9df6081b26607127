"""What may run by plan and account: the rules themselves, and the use cases that uphold them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.context import Cause, acting
from libs.common.contracts.environments import DesiredState, Resources
from libs.common.contracts.environments import EnvironmentStatus as Status
from libs.common.contracts.events import (
    EnvironmentDeleteRequested,
    EnvironmentRestartRequested,
    EnvironmentStartRequested,
    EnvironmentStatusChanged,
    EnvironmentStopRequested,
    EnvironmentWish,
    Event,
    RuntimeDelayed,
    RuntimeDeleted,
    RuntimeFailed,
    RuntimeReport,
    RuntimeRunning,
    RuntimeStopped,
)
from libs.common.contracts.identity import PLAN_LIMITS, Plan
from libs.common.contracts.users import OwnerEmptied, UserDeleted, UserPlanChanged, UserState, UserUpdated
from libs.common.errors import TemporaryError
from services.envs.allowance import DEACTIVATED, Occupant, no_room, require_room, verdicts
from services.envs.entities import Command, Environment
from services.envs.errors import AccountInactiveError, EnvironmentNotFoundError, QuotaExceededError
from services.envs.plans import Account, cut_to_plan
from services.envs.service.accounts import AccountService
from services.envs.service.environments import EnvironmentService, NewEnvironment
from services.envs.service.owners import OwnerService
from services.envs.service.recall import RecallService
from services.envs.service.regions import RegionService
from services.envs.service.reports import ReportService
from services.envs.service.templates import TemplateService
from tests.fakes.envs import FakeAccounts, FakeClusters, FakeDepartures, FakeEnvironments, FakeTemplates, PlainSeal
from tests.unit.envs.makers import NOW, a_principal, an_environment

USER = "u" * 32
BIG = Resources(cpu="2000m", memory="4Gi", storage="20Gi")

occupants = st.lists(
    st.builds(
        lambda desired, minutes: (desired, NOW + timedelta(minutes=minutes)),
        st.sampled_from(DesiredState),
        st.integers(0, 20),
    ),
    max_size=16,
).map(lambda found: [Occupant(f"{number:032x}", *one) for number, one in enumerate(found)])
accounts_of_any_kind = st.builds(
    Account, st.just(USER), st.sampled_from(Plan), is_active=st.booleans(), is_verified=st.just(True)
)


def running(found: list[Occupant]) -> list[Occupant]:
    return [one for one in found if one.desired is DesiredState.RUNNING]


def after(found: list[Occupant], account: Account) -> list[Occupant]:
    """Once what the rules ask for is wished."""
    wished = {verdict.environment_id: verdict.command for verdict in verdicts(account, found)}
    states = {Command.STOP: DesiredState.STOPPED, Command.DELETE: DesiredState.DELETED}
    return [replace(one, desired=states[wished[one.id]]) if one.id in wished else one for one in found]


class TestRules:
    @given(found=occupants, account=accounts_of_any_kind)
    def test_never_more_than_the_plan_allows_and_none_of_an_inactive_user(
        self, found: list[Occupant], account: Account
    ) -> None:
        allowed = PLAN_LIMITS[account.plan].environments if account.is_active else 0
        assert len(running(after(found, account))) == min(len(running(found)), allowed)

    @given(found=occupants, plan=st.sampled_from(Plan))
    def test_those_used_last_stay(self, found: list[Occupant], plan: Plan) -> None:
        left = after(found, Account(USER, plan, is_active=True, is_verified=True))
        stay = {one.id for one in running(left)}
        stopped = [one for one in running(found) if one.id not in stay]
        assert all(one.used_at <= kept.used_at for one in stopped for kept in running(left))

    @given(found=occupants, account=accounts_of_any_kind, is_deleted=st.booleans())
    def test_what_they_have_asked_for_satisfies_them(
        self, found: list[Occupant], account: Account, is_deleted: bool
    ) -> None:
        account = replace(account, is_deleted=is_deleted)
        assert verdicts(account, after(found, account)) == []
        if not is_deleted:
            assert all(verdict.command is Command.STOP for verdict in verdicts(account, found))

    @given(found=occupants, plan=st.sampled_from(Plan))
    def test_of_a_deleted_user_everything_goes(self, found: list[Occupant], plan: Plan) -> None:
        account = Account(USER, plan, is_active=False, is_verified=True, is_deleted=True)
        assert {one.desired for one in after(found, account)} <= {DesiredState.DELETED}

    def test_the_sentences_say_what_to_do(self) -> None:
        assert no_room(Plan.FREE) == "Your free plan runs 1 environment at a time; stop another one to start this one"
        assert "runs 3 environments" in no_room(Plan.STARTER)

    @given(found=occupants, plan=st.sampled_from(Plan))
    def test_there_is_room_exactly_when_one_more_would_stay(self, found: list[Occupant], plan: Plan) -> None:
        try:
            require_room(plan, "new", found)
        except QuotaExceededError:
            has_room = False
        else:
            has_room = True
        account = Account(USER, plan, is_active=True, is_verified=True)
        more = [*found, Occupant("new", DesiredState.RUNNING, NOW)]
        assert has_room == (verdicts(account, more) == [])

    def test_one_does_not_take_its_own_room(self) -> None:
        require_room(Plan.FREE, "mine", [Occupant("mine", DesiredState.RUNNING, NOW)])

    def test_resources_are_cut_to_the_plan_and_never_raised(self) -> None:
        assert cut_to_plan(BIG, Plan.STARTER) == Resources(cpu="1000m", memory="2Gi", storage="10Gi")
        assert cut_to_plan(BIG, Plan.ADMIN) == BIG


class Desk:
    """The use cases of one user, on fakes. `owned` holds environments by name."""

    def __init__(self) -> None:
        self.store = FakeEnvironments()
        self.accounts = FakeAccounts()
        self.departures = FakeDepartures(self.accounts)
        accounts = AccountService(self.accounts)
        self.templates = TemplateService(FakeTemplates(), self.store, image_prefix="images", clock=self.clock)
        self.environments = EnvironmentService(
            self.store,
            self.templates,
            accounts,
            RegionService(FakeClusters()),
            PlainSeal(),
            verified_only=False,
            clock=self.clock,
        )
        self.owners = OwnerService(self.store, accounts, self.departures, self.clock)
        self.reports = ReportService(self.store, self.clock, self.owners)
        self._version = 0

    def clock(self) -> datetime:
        return NOW

    def own(self, name: str, status: Status = Status.RUNNING, *, used: int | None = None, **more: Any) -> Environment:
        """An environment, last used at this minute."""
        slot = len(self.store.found)
        at = NOW + timedelta(minutes=used) if used is not None else None
        environment = an_environment(status, id=name * 32, name=name, slot=slot, last_accessed=at, **more)
        self.store.found[environment.id] = environment
        return environment

    def now(self, name: str) -> Environment:
        return self.store.found[name * 32]

    def statuses(self) -> dict[str, Status]:
        return {environment.name: environment.status for environment in self.store.found.values()}

    async def know(self, kind: type[UserState] = UserPlanChanged, plan: Plan = Plan.PRO, **more: bool) -> UserState:
        """The read model hears of the user; nobody acts upon it yet."""
        self._version += 1
        values = {"is_active": True, "is_verified": True, **more}
        state = kind(user_id=USER, username="u", plan=plan, version=self._version, **values)
        await self.accounts.take(state)
        return state

    async def hear(self, kind: type[UserState] = UserPlanChanged, plan: Plan = Plan.PRO, **more: bool) -> UserState:
        state = await self.know(kind, plan, **more)
        await self.owners.account_told(state)
        return state

    async def report(self, name: str, kind: type[RuntimeReport], sequence: int = 50) -> None:
        environment = self.now(name)
        await self.reports.apply(
            kind(environment_id=environment.id, user_id=USER, generation=environment.generation, runtime="local"),
            sequence,
        )

    def wishes(self) -> list[EnvironmentWish]:
        payloads = [event.payload() for event in self.store.events]
        return [data for data in payloads if isinstance(data, EnvironmentWish)]


@pytest.fixture
async def desk() -> Desk:
    desk = Desk()
    await desk.templates.seed()
    return desk


class TestPlanChange:
    async def test_a_smaller_plan_stops_those_not_used_for_longest(self, desk: Desk) -> None:
        desk.own("a", used=5)
        desk.own("b", Status.CREATING, used=9)
        desk.own("c", Status.ERROR, used=1)
        desk.own("d", Status.STOPPED, used=20)
        await desk.hear(plan=Plan.FREE)
        assert desk.statuses() == {"a": "stopping", "b": "creating", "c": "stopping", "d": "stopped"}
        assert desk.now("a").status_reason == no_room(Plan.FREE)
        assert {type(wish) for wish in desk.wishes()} == {EnvironmentStopRequested}
        assert len(desk.wishes()) == 2

    async def test_the_wish_is_this_services_own_and_caused_by_the_event(self, desk: Desk) -> None:
        desk.own("a")
        with acting(Cause("request", "event", "somebody", "192.0.2.1")):
            await desk.hear(UserUpdated, is_active=False)
        assert {(e.actor, e.correlationid, e.causationid, e.actoraddress) for e in desk.store.events} == {
            ("envs", "request", "event", None)
        }

    async def test_what_was_never_used_counts_from_its_creation(self, desk: Desk) -> None:
        desk.own("a", used=-5)
        desk.own("b")
        await desk.hear(plan=Plan.FREE)
        assert desk.statuses() == {"a": "stopping", "b": "running"}

    async def test_told_again_changes_nothing_and_an_old_event_rules_nothing(self, desk: Desk) -> None:
        desk.own("a", used=1)
        desk.own("b", used=2)
        old = await desk.know(plan=Plan.FREE)
        new = await desk.know(plan=Plan.STARTER)
        for state in (new, old, new):
            await desk.owners.account_told(state)
        assert desk.store.events == []

    async def test_other_writers_that_are_always_faster_are_waited_for(self, desk: Desk) -> None:
        desk.own("a")
        desk.store.conflicts = 1_000
        with pytest.raises(TemporaryError):
            await desk.hear(UserUpdated, is_active=False)

    @pytest.mark.parametrize("command", [Command.STOP, Command.DELETE])
    async def test_what_its_user_ends_at_the_same_time_is_left_to_that(self, desk: Desk, command: Command) -> None:
        environment = desk.own("a")
        occupants = await desk.store.occupants(USER)
        await desk.environments.command(a_principal(), environment.id, command)

        async def stale(user_id: str) -> list[Occupant]:
            return occupants

        desk.store.occupants = stale  # type: ignore[method-assign]
        await desk.hear(UserUpdated, is_active=False)
        assert len(desk.wishes()) == 1
        assert desk.now("a").stop_reason is None


class TestReason:
    async def test_it_shows_until_it_is_started_again(self, desk: Desk) -> None:
        desk.own("a")
        await desk.hear(UserUpdated, is_active=False)
        await desk.report("a", RuntimeStopped)
        assert (desk.now("a").status, desk.now("a").status_reason) == ("stopped", DEACTIVATED)
        told = desk.store.events[-1].payload()
        assert isinstance(told, EnvironmentStatusChanged)
        assert told.status_reason == DEACTIVATED
        await desk.hear(UserUpdated)
        assert desk.now("a").status is Status.STOPPED, "nothing starts by itself"
        await desk.environments.command(a_principal(), desk.now("a").id, Command.START)
        assert (desk.now("a").status_reason, desk.now("a").stop_reason) == (None, None)

    async def test_what_goes_wrong_meanwhile_is_shown_meanwhile(self, desk: Desk) -> None:
        desk.own("a")
        await desk.hear(UserUpdated, is_active=False)
        for sequence, kind in enumerate((RuntimeDelayed, RuntimeFailed), 50):
            await desk.report("a", kind, sequence)
            assert desk.now("a").status_reason == "The runtime gave no reason"
        await desk.report("a", RuntimeStopped, 60)
        assert desk.now("a").status_reason == DEACTIVATED

    @pytest.mark.parametrize("stopped_first", [False, True])
    async def test_a_replay_takes_it_from_the_stream(self, desk: Desk, *, stopped_first: bool) -> None:
        await desk.environments.create(a_principal(), NewEnvironment(name="mine", template="python"))
        await desk.hear(UserUpdated, is_active=False)
        again = FakeEnvironments()
        recalls = RecallService(again)
        (environment_id,) = desk.store.found
        report = RuntimeStopped(environment_id=environment_id, user_id=USER, generation=2, runtime="local")
        await desk.reports.apply(report, 50)
        for event in desk.store.events:
            data = event.payload()
            if isinstance(data, EnvironmentWish):
                await recalls.recall(data, NOW)
                if stopped_first and isinstance(data, EnvironmentStopRequested):
                    await ReportService(again).apply(report, 50)
            elif isinstance(data, EnvironmentStatusChanged):
                await recalls.recall_reason(data)
        if not stopped_first:
            await ReportService(again).apply(report, 50)
        live, replayed = desk.store.found[environment_id], again.found[environment_id]
        shown = [(one.status, one.status_reason, one.stop_reason) for one in (live, replayed)]
        assert shown == [("stopped", DEACTIVATED, DEACTIVATED)] * 2


class TestStarting:
    @pytest.mark.parametrize(("status", "command"), [(Status.STOPPED, Command.START), (Status.ERROR, Command.RESTART)])
    async def test_is_refused_while_as_many_as_allowed_should_run(
        self, desk: Desk, status: Status, command: Command
    ) -> None:
        desk.own("a")
        idle = desk.own("b", status, desired=DesiredState.STOPPED)
        await desk.hear(plan=Plan.FREE)
        with pytest.raises(QuotaExceededError, match="free plan runs 1 environment at a time; stop another one"):
            await desk.environments.command(a_principal(), idle.id, command)
        assert desk.wishes() == []
        await desk.environments.command(a_principal(), desk.now("a").id, Command.STOP)
        await desk.environments.command(a_principal(), idle.id, command)

    async def test_what_should_run_anyway_may_be_restarted(self, desk: Desk) -> None:
        desk.own("a")
        desk.own("b", Status.STOPPED)
        await desk.hear(plan=Plan.FREE)
        restarted = await desk.environments.command(a_principal(), desk.now("a").id, Command.RESTART)
        assert restarted.status is Status.RESTARTING
        await desk.environments.command(a_principal(), restarted.id, Command.RESTART)

    @pytest.mark.parametrize(
        ("status", "command", "kind"),
        [
            (Status.STOPPED, Command.START, EnvironmentStartRequested),
            (Status.RUNNING, Command.RESTART, EnvironmentRestartRequested),
        ],
    )
    async def test_cuts_resources_to_the_plan_in_the_wish(
        self, desk: Desk, status: Status, command: Command, kind: type[EnvironmentWish]
    ) -> None:
        environment = desk.own("a", status, resources=BIG)
        await desk.hear(plan=Plan.FREE)
        assert desk.now("a").resources == BIG
        await desk.environments.command(a_principal(), environment.id, command)
        (wish,) = desk.wishes()
        assert isinstance(wish, kind)
        assert wish.spec.resources == desk.now("a").resources == Resources.of_plan(PLAN_LIMITS[Plan.FREE])

    async def test_two_starts_at_once_end_with_what_the_plan_allows(self, desk: Desk) -> None:
        """Each has looked before the other wrote: the one that is not to run is told so."""
        desk.own("a", Status.STOPPED, used=1)
        desk.own("b", Status.STOPPED, used=2)
        await desk.hear(plan=Plan.FREE)
        looked = await desk.store.occupants(USER)
        await desk.environments.command(a_principal(), desk.now("b").id, Command.START)
        real = desk.store.occupants
        answers = [looked]

        async def late(user_id: str) -> list[Occupant]:
            return answers.pop() if answers else await real(user_id)

        desk.store.occupants = late  # type: ignore[method-assign]
        with pytest.raises(QuotaExceededError, match="stop another one to start this one"):
            await desk.environments.command(a_principal(), desk.now("a").id, Command.START)
        assert desk.statuses() == {"a": "stopping", "b": "starting"}

    @pytest.mark.parametrize("is_active", [True, False])
    async def test_a_change_of_the_account_meanwhile_rules(self, desk: Desk, *, is_active: bool) -> None:
        desk.own("a", used=9)
        idle = desk.own("b", Status.STOPPED, used=1)
        await desk.hear(plan=Plan.PRO)
        _just_before(desk, "save", lambda: desk.hear(plan=Plan.FREE, is_active=is_active))
        expected = QuotaExceededError if is_active else AccountInactiveError
        with pytest.raises(expected):
            await desk.environments.command(a_principal(), idle.id, Command.START)
        assert desk.statuses() == {"a": "running" if is_active else "stopping", "b": "stopping"}

    async def test_one_left_running_by_a_crash_is_stopped_when_it_runs(self, desk: Desk) -> None:
        desk.own("a", used=9)
        desk.own("b", Status.STARTING, used=1)
        await desk.know(plan=Plan.FREE)
        await desk.report("b", RuntimeRunning)
        assert desk.statuses() == {"a": "running", "b": "stopping"}

    async def test_a_running_one_of_an_unknown_user_is_left_alone(self, desk: Desk) -> None:
        desk.own("a")
        desk.own("b", Status.STARTING)
        await desk.report("b", RuntimeRunning)
        assert desk.statuses() == {"a": "running", "b": "running"}


class TestCreating:
    @pytest.mark.parametrize(("kind", "is_deleted"), [(UserUpdated, False), (UserDeleted, True)])
    async def test_for_who_was_deactivated_meanwhile_leaves_nothing(
        self, desk: Desk, kind: type[UserState], *, is_deleted: bool
    ) -> None:
        await desk.hear()
        _just_before(desk, "insert", lambda: desk.hear(kind, is_active=False))
        with acting(Cause(actor=USER)), pytest.raises(AccountInactiveError):
            await desk.environments.create(a_principal(), NewEnvironment(name="mine", template="python"))
        (environment,) = desk.store.found.values()
        assert environment.desired is DesiredState.DELETED
        actors = {type(event.payload()): event.actor for event in desk.store.events}
        assert actors[EnvironmentDeleteRequested] == "envs"
        assert bool(desk.departures.told) == is_deleted

    async def test_under_a_plan_that_became_smaller_meanwhile_runs_no_more_than_it_allows(self, desk: Desk) -> None:
        desk.own("a", used=-5)
        await desk.hear()
        _just_before(desk, "insert", lambda: desk.hear(plan=Plan.FREE))
        created = await desk.environments.create(a_principal(), NewEnvironment(name="mine", template="python"))
        assert created.desired is DesiredState.RUNNING
        assert desk.statuses() == {"a": "stopping", "mine": "creating"}


class TestDeletion:
    async def test_without_environments_the_end_is_told_at_once_and_once(self, desk: Desk) -> None:
        state = await desk.hear(UserDeleted, is_active=False)
        await desk.owners.account_told(state)
        (event,) = desk.departures.events
        assert (event.nats_subject, event.source) == (f"devpocket.owner.{USER}.emptied", "envs")
        assert event.payload() == OwnerEmptied(user_id=USER, environments=0)

    async def test_the_end_is_told_when_the_last_one_is_gone(self, desk: Desk) -> None:
        desk.own("a")
        desk.own("b", Status.STOPPED)
        state = await desk.hear(UserDeleted, is_active=False)
        assert {type(wish) for wish in desk.wishes()} == {EnvironmentDeleteRequested}
        await desk.report("a", RuntimeDeleted)
        await desk.owners.account_told(state)
        assert _numbers(desk.departures.events) == []
        for _ in range(2):
            await desk.report("b", RuntimeDeleted)
        await desk.owners.account_told(state)
        assert _numbers(desk.departures.events) == [2]

    async def test_a_report_heard_again_finishes_what_a_crash_has_left(self, desk: Desk) -> None:
        desk.own("a")
        await desk.hear(UserDeleted, is_active=False)
        report = RuntimeDeleted(environment_id=desk.now("a").id, user_id=USER, generation=4, runtime="local")
        await ReportService(desk.store).apply(report, 50)
        assert (desk.now("a").status, desk.departures.events) == (Status.TERMINATED, [])
        await desk.reports.apply(report, 50)
        assert _numbers(desk.departures.events) == [1]

    async def test_what_is_gone_before_the_deletion_is_known_does_not_count(self, desk: Desk) -> None:
        desk.own("a", Status.TERMINATING)
        await desk.hear()
        await desk.report("a", RuntimeDeleted)
        assert desk.departures.events == []
        await desk.hear(UserDeleted, is_active=False)
        assert _numbers(desk.departures.events) == [0]

    async def test_one_that_appears_afterwards_goes_when_it_runs(self, desk: Desk) -> None:
        await desk.hear(UserDeleted, is_active=False)
        desk.own("a", Status.CREATING)
        await desk.report("a", RuntimeRunning)
        assert desk.now("a").desired is DesiredState.DELETED
        await desk.report("a", RuntimeDeleted, 51)
        assert _numbers(desk.departures.events) == [0]

    async def test_the_user_finds_nothing_to_start(self, desk: Desk) -> None:
        environment = desk.own("a", Status.STOPPED)
        await desk.hear(UserDeleted, is_active=False)
        with pytest.raises(AccountInactiveError):
            await desk.environments.command(a_principal(), environment.id, Command.START)
        with pytest.raises(EnvironmentNotFoundError):
            await desk.environments.command(a_principal(), "x" * 32, Command.STOP)


def _numbers(events: list[Event]) -> list[int]:
    return [data.environments for event in events if isinstance(data := event.payload(), OwnerEmptied)]


def _just_before(desk: Desk, method: str, happen: Callable[[], Awaitable[object]]) -> None:
    """Another replica does something between the look of the next write and the write itself."""
    real = getattr(desk.store, method)

    async def late(*arguments: object) -> object:
        setattr(desk.store, method, real)
        await happen()
        return await real(*arguments)

    setattr(desk.store, method, late)
