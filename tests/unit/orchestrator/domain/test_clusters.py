"""Where a new environment goes, which cluster is the default, and how health is judged."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.clusters import (
    ClusterHealth,
    ClusterHealthChanged,
    ClusterRemoved,
    ClusterStatus,
    ClusterUpdated,
)
from libs.runtime.port import RuntimeUnavailableError, WorkspaceRejectedError
from services.orchestrator.domain.clusters import (
    CheckResult,
    Cluster,
    ClusterEdit,
    answered,
    checked,
    contenders,
    default_of,
    edit,
    place,
    removed,
)
from tests.unit.orchestrator.memory import START
from tests.unit.orchestrator.memory_clusters import a_cluster

AWAY = CheckResult(None, "ClusterUnreachable", "No answer.")
WELL = CheckResult("v1.36.1")
LATER = START + timedelta(seconds=10)
DEFAULT = a_cluster("default", "home")


def unreachable(name: str, region: str = "eu", message: str | None = None) -> Cluster:
    return a_cluster(name, region, health=ClusterHealth.UNREACHABLE, message=message)


def draining(name: str, region: str = "eu") -> Cluster:
    return a_cluster(name, region, status=ClusterStatus.DRAINING)


def placed(clusters: Sequence[Cluster], region: str | None = "eu", **load: int) -> str:
    return place(clusters, region, load).id


class TestPlace:
    def test_in_its_region(self) -> None:
        assert placed([DEFAULT, a_cluster("a", "us"), a_cluster("b", "eu")]) == "b"

    def test_without_one_on_the_default(self) -> None:
        assert placed([a_cluster("a", "home"), DEFAULT], None, default=9) == "default"

    @pytest.mark.parametrize(
        "default",
        [
            a_cluster("default", "home", health=ClusterHealth.UNREACHABLE),
            a_cluster("default", "home", health=ClusterHealth.UNKNOWN),
            a_cluster("default", "home", status=ClusterStatus.DRAINING),
            a_cluster("default", "home", capacity=2),
        ],
    )
    def test_without_one_beside_a_default_that_takes_none(self, default: Cluster) -> None:
        assert placed([default, a_cluster("z", "home"), a_cluster("a", "eu")], None, default=2) == "z"

    def test_on_the_emptiest(self) -> None:
        assert placed([a_cluster("a"), a_cluster("b"), a_cluster("c")], a=2, b=1, c=2) == "b"
        some = [a_cluster("a", capacity=10), a_cluster("b", capacity=100)]
        assert placed(some, a=5, b=20) == "b"
        assert placed(some, a=1, b=20) == "a"

    def test_equals_are_told_apart_by_name(self) -> None:
        assert placed([a_cluster("b"), a_cluster("a")]) == "a"

    def test_not_on_one_that_is_full_draining_away_or_unknown(self) -> None:
        unknown = a_cluster("c", health=ClusterHealth.UNKNOWN)
        full = a_cluster("d", capacity=1)
        assert placed([draining("a"), unreachable("b"), unknown, full, a_cluster("e")], d=1, e=99) == "e"

    def test_an_unknown_region_is_final_and_the_others_are_named(self) -> None:
        gone = a_cluster("g", "mars", status=ClusterStatus.REMOVED)
        with pytest.raises(WorkspaceRejectedError, match=r"no region 'mars'; there are: eu, home") as raised:
            placed([DEFAULT, a_cluster("a"), gone], "mars")
        assert raised.value.reason == "RegionUnknown"

    @pytest.mark.parametrize(
        ("clusters", "reason", "words"),
        [
            ([a_cluster("a", capacity=1), draining("b"), unreachable("c")], "RegionFull", "is full"),
            ([draining("a"), draining("b")], "RegionDraining", "takes no new environments"),
            ([draining("a"), unreachable("b", message="Gone fishing.")], "ClusterUnreachable", "Gone fishing"),
            ([a_cluster("a", health=ClusterHealth.UNKNOWN)], "ClusterUnreachable", "cannot be reached"),
        ],
    )
    def test_what_time_may_cure_says_so(self, clusters: list[Cluster], reason: str, words: str) -> None:
        with pytest.raises(RuntimeUnavailableError, match=words) as raised:
            placed([DEFAULT, *clusters], a=1)
        assert raised.value.reason == reason


def _clusters() -> st.SearchStrategy[list[Cluster]]:
    one = st.builds(
        a_cluster,
        name=st.text("abcdefgh", min_size=1, max_size=3),
        region=st.sampled_from(["eu", "us"]),
        status=st.sampled_from(ClusterStatus),
        health=st.sampled_from(ClusterHealth),
        capacity=st.none() | st.integers(1, 3),
        default_since=st.none() | st.just(START),
    )
    return st.lists(one, unique_by=lambda cluster: cluster.id, max_size=6)


class TestPlaceAlways:
    @given(_clusters(), st.sampled_from([None, "eu", "us"]), st.data())
    def test_takes_new_has_room_and_does_not_depend_on_the_order(
        self, clusters: list[Cluster], region: str | None, data: st.DataObject
    ) -> None:
        load = {cluster.id: data.draw(st.integers(0, 4)) for cluster in clusters}
        fitting = [
            cluster
            for cluster in contenders(clusters, region)
            if cluster.capacity is None or load[cluster.id] < cluster.capacity
        ]
        try:
            found = place(clusters, region, load)
        except (RuntimeUnavailableError, WorkspaceRejectedError):
            assert not fitting
            return
        assert found in fitting
        assert (found.status, found.health) == (ClusterStatus.ACTIVE, ClusterHealth.HEALTHY)
        if region is not None:
            assert found.region == region
        assert place(data.draw(st.permutations(clusters)), region, load) == found
        assert place(clusters, region, {each.id: load[each.id] for each in contenders(clusters, region)}) == found


class TestDefault:
    def test_is_the_one_of_the_settings_until_another_is_declared(self) -> None:
        assert default_of([a_cluster("a"), DEFAULT]) == DEFAULT
        declared = a_cluster("b", default_since=START)
        assert default_of([a_cluster("a"), declared, DEFAULT]) == declared

    def test_of_several_the_latest(self) -> None:
        old, new = a_cluster("a", default_since=START), a_cluster("b", default_since=LATER)
        assert default_of([new, old, DEFAULT]) == new

    def test_a_removed_one_is_none(self) -> None:
        old = a_cluster("a", default_since=START)
        gone = a_cluster("b", default_since=LATER, status=ClusterStatus.REMOVED)
        assert default_of([gone, old, DEFAULT]) == old
        assert default_of([gone]) is None


class TestChecked:
    def test_one_lost_answer_is_no_outage(self) -> None:
        first = checked(a_cluster("a"), AWAY, LATER)
        assert (first.cluster.health, first.cluster.failures, first.event) == (ClusterHealth.HEALTHY, 1, None)
        assert first.cluster.message is None
        assert (first.before, first.cluster.version) == (1, 1)

    def test_two_are_and_it_is_told_once(self) -> None:
        once = checked(a_cluster("a", failures=1), AWAY, LATER)
        assert (once.cluster.health, once.event) == (ClusterHealth.UNREACHABLE, ClusterHealthChanged)
        assert (once.cluster.reason, once.cluster.message) == ("ClusterUnreachable", "No answer.")
        assert (once.before, once.cluster.version, once.cluster.updated_at) == (1, 2, LATER)
        again = checked(once.cluster, AWAY, LATER)
        assert (again.event, again.cluster.version, again.cluster.failures) == (None, 2, 3)

    def test_an_answer_between_two_failures_starts_anew(self) -> None:
        well = checked(a_cluster("a", failures=1), WELL, LATER)
        assert (well.cluster.failures, well.event) == (0, None)
        assert checked(well.cluster, AWAY, LATER).event is None

    @pytest.mark.parametrize(("result", "health"), [(AWAY, ClusterHealth.UNREACHABLE), (WELL, ClusterHealth.HEALTHY)])
    def test_first_contact_is_believed_at_once(self, result: CheckResult, health: ClusterHealth) -> None:
        change = checked(a_cluster("a", health=ClusterHealth.UNKNOWN), result, LATER)
        assert (change.cluster.health, change.event) == (health, ClusterHealthChanged)

    def test_the_first_answer_ends_an_outage(self) -> None:
        change = checked(unreachable("a", message="No answer."), WELL, LATER)
        assert (change.cluster.health, change.cluster.reason, change.cluster.message) == (
            ClusterHealth.HEALTHY,
            None,
            None,
        )
        assert (change.event, change.cluster.server_version) == (ClusterHealthChanged, "v1.36.1")

    def test_one_answer_is_shown_as_it_is(self) -> None:
        shown = answered(a_cluster("a"), AWAY)
        assert (shown.health, shown.message, shown.failures) == (ClusterHealth.UNREACHABLE, "No answer.", 0)
        assert answered(shown, WELL).health is ClusterHealth.HEALTHY


class TestEdit:
    def test_what_is_not_named_stays(self) -> None:
        before = a_cluster("a", capacity=5, default_since=START)
        change = edit(before, ClusterEdit(region="us"), LATER)
        assert (change.cluster.region, change.cluster.capacity, change.cluster.default_since) == ("us", 5, START)
        assert (change.before, change.cluster.version, change.event) == (1, 2, ClusterUpdated)

    def test_what_changes_nothing_is_no_event(self) -> None:
        before = a_cluster("a", capacity=5)
        for wanted in (ClusterEdit(), ClusterEdit(region="eu", capacity=5, is_default=False)):
            assert edit(before, wanted, LATER).event is None

    def test_capacity_zero_is_any_number(self) -> None:
        assert edit(a_cluster("a", capacity=5), ClusterEdit(capacity=0), LATER).cluster.capacity is None

    def test_the_default_is_declared_and_taken_back(self) -> None:
        declared = edit(a_cluster("a"), ClusterEdit(is_default=True), LATER).cluster
        assert declared.default_since == LATER
        assert edit(declared, ClusterEdit(is_default=False), LATER).cluster.default_since is None

    def test_new_credentials_are_for_both_unless_the_terminal_has_its_own(self) -> None:
        both = edit(a_cluster("a"), ClusterEdit(connection_sealed="new"), LATER).cluster
        assert (both.connection_sealed, both.terminal_sealed) == ("new", "new")
        two = edit(a_cluster("a"), ClusterEdit(connection_sealed="new", terminal_sealed="own"), LATER).cluster
        assert (two.connection_sealed, two.terminal_sealed) == ("new", "own")
        own = edit(a_cluster("a"), ClusterEdit(terminal_sealed="own"), LATER).cluster
        assert (own.connection_sealed, own.terminal_sealed) == ("sealed a", "own")


class TestRemoved:
    def test_leaves_nothing_that_opens_or_counts(self) -> None:
        before = a_cluster("a", default_since=START, failures=3, message="x", reason="X")
        change = removed(before, LATER)
        gone = change.cluster
        assert (gone.status, gone.connection_sealed, gone.terminal_sealed) == (ClusterStatus.REMOVED, None, None)
        assert (gone.default_since, gone.failures, gone.message, gone.takes_new) == (None, 0, None, False)
        assert (change.before, gone.version, change.event) == (1, 2, ClusterRemoved)
