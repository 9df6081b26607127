"""Each check finds what it is there for: a world in which all is well, and the same world with one thing wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from libs.common.clock import utc_now
from tests.chaos.drift import Replay, drift
from tests.chaos.evidence import Consumer, DeadLetter, Message
from tests.chaos.ground import Thing
from tests.chaos.ledger import ANSWER, DOUBLED, DRIFT, LEASE, LETTER, LOST, ORPHAN, STUCK, Ledger, Poison
from tests.chaos.world import World


def test_where_all_is_well_nothing_is_found() -> None:
    assert World().verdict() == set()


def _no_event(world: World) -> None:
    world.remove("env.updated")


def _no_effect(world: World) -> None:
    world.document("envs", "environments", "alive")["desired"] = "stopped"


def _older_description(world: World) -> None:
    world.document("envs", "environments", "alive")["description"] = "as created"


def _no_document(world: World) -> None:
    world.databases["envs"]["environments"].pop(0)


def _twice_from_one_request(world: World) -> None:
    world.repeat("env.updated", version=9)


def _generation_twice(world: World) -> None:
    world.repeat("env.start_requested")


def _hole_in_statuses(world: World) -> None:
    world.remove("env.status_changed")


def _out_of_order(world: World) -> None:
    at = [message.name for message in world.messages].index("env.stop_requested")
    world.messages.insert(0, world.messages.pop(at))


def _nobody_knows_it(world: World) -> None:
    world.say("env.created", "stranger", "", desired="running", generation=1, version=1)


def _same_event_twice(world: World) -> None:
    again = world.messages[0]
    world.messages.append(Message(99, again.subject, again.message_id, again.event))


def _unpublished(world: World) -> None:
    world.document("auth", "users", "user")["pending_events"] = [{"event": {"type": "devpocket.user.updated.v1"}}]


def _never_registered(world: World) -> None:
    world.remove("user.registered", "user")


def _logged_in_twice(world: World) -> None:
    world.repeat("user.logged_in", "user")


def _revoked_in_silence(world: World) -> None:
    world.document("auth", "sessions", "login")["revoked_at"] = utc_now()


def _shell_closed_twice(world: World) -> None:
    world.repeat("terminal.session_closed")


def _shell_closed_in_silence(world: World) -> None:
    world.remove("terminal.session_closed")


def _reported_twice(world: World) -> None:
    world.repeat("runtime.running")


def _two_at_work(world: World) -> None:
    world.repeat("runtime.provisioning")
    world.document("orchestrator", "workspaces", "alive")["observed"]["said"] = "provisioning"


def _report_of_the_past(world: World) -> None:
    world.repeat("runtime.stopped")
    world.document("orchestrator", "workspaces", "alive")["observed"] = {"said": "stopped", "generation": 2}


def _report_missing(world: World) -> None:
    world.remove("runtime.deleted", "gone")


def _in_between(world: World) -> None:
    world.document("envs", "environments", "alive")["status"] = "starting"


def _failed(world: World) -> None:
    world.document("envs", "environments", "alive")["status"] = "error"


def _wish_not_done(world: World) -> None:
    world.document("orchestrator", "workspaces", "alive")["generation"] = 4


def _unanswered(world: World) -> None:
    world.consumers[0] = Consumer("orchestrator-environments", "devpocket.env.*.*", 0, 1)


def _open_shell(world: World) -> None:
    world.document("terminal", "sessions", "shell")["state"] = "open"


def _not_finished(world: World) -> None:
    world.ledger.lives["alive"].finished = False


def _old_wish_at_the_orchestrator(world: World) -> None:
    world.document("orchestrator", "workspaces", "alive")["version"] = 5


def _old_status_at_the_terminal(world: World) -> None:
    world.document("terminal", "environments", "gone")["status"] = "terminating"


def _unknown_to_the_terminal(world: World) -> None:
    world.databases["terminal"]["environments"].pop(0)


def _other_plan(world: World) -> None:
    world.document("envs", "users", "user")["plan"] = "pro"


def _dead_holder(world: World) -> None:
    lease = {"holder": "somebody", "until": utc_now() - timedelta(seconds=5)}
    world.document("orchestrator", "workspaces", "gone")["lease"] = lease


def _sandbox_of_a_deleted_one(world: World) -> None:
    world.sandboxes["gone"] = [4712]


def _two_sandboxes(world: World) -> None:
    world.sandboxes["alive"] = [4711, 4712]


def _no_sandbox(world: World) -> None:
    world.sandboxes.clear()


def _volume_left(world: World) -> None:
    world.things.append(Thing("persistentvolumeclaims", "ws-gone", "gone"))


def _rubbish_left(world: World) -> None:
    world.things.append(Thing("trash", "alive.0badcafe", "alive", ending=True))


def _nobodys_secret_left(world: World) -> None:
    world.things.append(Thing("secrets", "ws-x", "?"))


def _namespace_left(world: World) -> None:
    world.things.append(Thing("namespaces", "namespaces/other", "other"))


def _two_pods(world: World) -> None:
    world.things.append(Thing("pods", "elsewhere/alive", "alive"))


def _removal_without_end(world: World) -> None:
    world.things.append(Thing("namespaces", "namespaces/other", "other", ending=True))


def _poison_not_buried(world: World) -> None:
    world.dead.pop()


def _poison_buried_twice(world: World) -> None:
    world.dead.append(world.dead[0])


def _healthy_event_buried(world: World) -> None:
    world.dead.append(DeadLetter("envs-users", 1, "ValueError"))


def _noticed_on_the_way(world: World) -> None:
    world.ledger.notice(ANSWER, "alive", "stop: 418")


@pytest.mark.parametrize(
    ("tamper", "kind", "about"),
    [
        (_no_event, LOST, "alive"),
        (_no_effect, LOST, "alive"),
        (_older_description, LOST, "alive"),
        (_no_document, LOST, "alive"),
        (_twice_from_one_request, DOUBLED, "alive"),
        (_generation_twice, DOUBLED, "alive"),
        (_hole_in_statuses, LOST, "alive"),
        (_out_of_order, LOST, "alive"),
        (_nobody_knows_it, LOST, "stranger"),
        (_same_event_twice, DOUBLED, "user"),
        (_unpublished, STUCK, "user"),
        (_never_registered, LOST, "user"),
        (_logged_in_twice, DOUBLED, "login"),
        (_revoked_in_silence, LOST, "login"),
        (_shell_closed_twice, DOUBLED, "alive"),
        (_shell_closed_in_silence, LOST, "alive"),
        (_reported_twice, DOUBLED, "alive"),
        (_two_at_work, DOUBLED, "alive"),
        (_report_of_the_past, DOUBLED, "alive"),
        (_report_missing, LOST, "gone"),
        (_in_between, STUCK, "alive"),
        (_failed, STUCK, "alive"),
        (_wish_not_done, STUCK, "-"),
        (_unanswered, STUCK, "-"),
        (_open_shell, STUCK, "-"),
        (_not_finished, STUCK, "alive"),
        (_old_wish_at_the_orchestrator, DRIFT, "alive"),
        (_old_status_at_the_terminal, DRIFT, "gone"),
        (_unknown_to_the_terminal, DRIFT, "alive"),
        (_other_plan, DRIFT, "user"),
        (_dead_holder, LEASE, "gone"),
        (_sandbox_of_a_deleted_one, ORPHAN, "gone"),
        (_two_sandboxes, DOUBLED, "alive"),
        (_no_sandbox, LOST, "alive"),
        (_volume_left, ORPHAN, "gone"),
        (_rubbish_left, ORPHAN, "alive"),
        (_nobodys_secret_left, ORPHAN, "?"),
        (_namespace_left, ORPHAN, "other"),
        (_two_pods, DOUBLED, "alive"),
        (_removal_without_end, STUCK, "-"),
        (_poison_not_buried, LETTER, "alive"),
        (_poison_buried_twice, LETTER, "alive"),
        (_healthy_event_buried, LETTER, "user"),
        (_noticed_on_the_way, ANSWER, "alive"),
    ],
)
def test_what_is_wrong_is_found(tamper: Callable[[World], None], kind: str, about: str) -> None:
    world = World()
    tamper(world)
    assert (kind, about) in world.verdict()


_FIELD = {"collection": "environments", "id": "alive", "field": "status", "live": "running", "replayed": "stopped"}
_POISON = {"sequence": 27, "subject": "devpocket.env.alive.created", "error": "no JSON"}
_HEALTHY = {"sequence": 3, "subject": "devpocket.env.alive.created", "error": "a bug"}


@pytest.mark.parametrize(
    ("replay", "about"),
    [
        (Replay("envs", 30, 20, failed=1, failures=[_POISON]), set()),
        (Replay("envs", 30, 20, failed=1, failures=[_HEALTHY]), {"devpocket.env.alive.created"}),
        (Replay("envs", 30, 20, failed=2, failures=[_POISON]), {"envs"}),
        (Replay("envs", 30, 20, drifted=1, fields=[_FIELD]), {"alive"}),
        (Replay("envs", 30, 20, drifted=2, fields=[_FIELD]), {"alive", "envs"}),
        (Replay("envs", problem="no answer"), {"envs"}),
    ],
)
def test_what_a_replay_sees_differently_is_drift(replay: Replay, about: set[str]) -> None:
    ledger = Ledger(poison=[Poison(27, "devpocket.env.alive.created", "no JSON")])
    found = list(drift([replay], ledger))
    assert {violation.about for violation in found} == about
    assert {violation.kind for violation in found} <= {DRIFT}
