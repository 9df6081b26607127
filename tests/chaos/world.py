"""A run as it should have gone, made up: for tests of the checks, which change one thing in it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from libs.common.clock import utc_now
from libs.common.contracts.events import Event
from libs.common.ids import new_id
from tests.chaos.checks import violations
from tests.chaos.evidence import Consumer, DeadLetter, Evidence, Message
from tests.chaos.ground import Thing
from tests.chaos.ledger import CREATE, DELETE, START, STOP, UPDATE, Accepted, Ledger, Life, Poison

_CONSUMERS = (
    *(("orchestrator-environments", "devpocket.env.*.*"), ("terminal-environments", "devpocket.env.*.*")),
    *(("envs-runtime", "devpocket.runtime.*.*"), ("envs-users", "devpocket.user.*.*")),
)


class World:
    """One user with an environment that runs (`alive`) and one that was deleted (`gone`); `tamper` with its parts."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.ledger = Ledger()
        self.databases: dict[str, dict[str, list[dict[str, Any]]]] = {
            "auth": {"users": [], "sessions": []},
            "envs": {"environments": [], "users": []},
            "orchestrator": {"workspaces": []},
            "terminal": {"environments": [], "sessions": []},
        }
        self.dead: list[DeadLetter] = []
        self.consumers = [Consumer(name, subject, 0, 0) for name, subject in _CONSUMERS]
        self.things = [Thing(kind, f"{kind}/alive", "alive") for kind in ("workspaces", "state", "pods")]
        self.things.append(Thing("namespaces", "namespaces/user", "user"))
        self.sandboxes: dict[str, list[int]] = {"alive": [4711]}
        self._user()
        self._alive()
        self._gone()
        self._terminal_session()
        self._poison()

    def say(self, name: str, subject: str, request: str = "", /, **data: Any) -> Message:
        """An event at the end of the stream."""
        sequence = self.messages[-1].sequence + 1 if self.messages else 1
        event = Event(
            id=new_id(),
            type=f"devpocket.{name}.v1",
            source="test",
            subject=subject,
            time=utc_now(),
            correlationid=request or None,
            data=data,
        )
        message = Message(sequence, event.nats_subject, event.id, event)
        self.messages.append(message)
        return message

    def _user(self) -> None:
        state = {"plan": "free", "is_active": True, "is_verified": False, "version": 1}
        self.say("user.registered", "user", "r1", user_id="user", **state)
        self.say("user.logged_in", "user", "r2", user_id="user", session_id="login")
        self.ledger.sign_ins.append("r2")
        self.databases["auth"]["users"].append({"_id": "user", "pending_events": []})
        self.databases["auth"]["sessions"].append({"_id": "login", "revoked_at": None})
        self.databases["envs"]["users"].append({"_id": "user", **state})

    def _wish(self, environment_id: str, name: str, request: str, desired: str, generation: int, version: int) -> None:
        wish = {"desired": desired, "generation": generation, "version": version, "name": environment_id}
        self.say(f"env.{name}", environment_id, request, **wish)

    def _change(self, environment_id: str, previous: str, status: str, generation: int, version: int) -> None:
        change = {"previous": previous, "status": status, "generation": generation, "version": version}
        self.say("env.status_changed", environment_id, **change)

    def _alive(self) -> None:
        self._wish("alive", "created", "a1", "running", 1, 1)
        self.say("runtime.provisioning", "alive", generation=1)
        self.say("runtime.running", "alive", generation=1)
        self._change("alive", "creating", "running", 1, 2)
        self._wish("alive", "stop_requested", "a2", "stopped", 2, 3)
        self._change("alive", "running", "stopping", 2, 3)
        self.say("runtime.stopped", "alive", generation=2)
        self._change("alive", "stopping", "stopped", 2, 4)
        self._wish("alive", "start_requested", "a4", "running", 3, 5)
        self._change("alive", "stopped", "starting", 3, 5)
        self.say("runtime.provisioning", "alive", generation=3)
        self.say("runtime.running", "alive", generation=3)
        self._change("alive", "starting", "running", 3, 6)
        self.say("runtime.lost", "alive", generation=3)
        self.say("runtime.running", "alive", generation=3)
        self._wish("alive", "updated", "a5", "running", 3, 8)
        life = Life("alive", "user", "alive", finished=True)
        life.accepted += [
            Accepted(CREATE, "alive", ("a1",), "as created"),
            Accepted(STOP, "alive", ("a2",)),
            Accepted(START, "alive", ("a3", "a4")),
            Accepted(UPDATE, "alive", ("a5",), "changed"),
        ]
        self.ledger.begin(life)
        self._documents("alive", "running", "running", generation=3, version=8, description="changed")

    def _gone(self) -> None:
        self._wish("gone", "created", "g1", "running", 1, 1)
        self._wish("gone", "delete_requested", "g2", "deleted", 2, 2)
        self._change("gone", "creating", "terminating", 2, 2)
        self.say("runtime.deleted", "gone", generation=2)
        self._change("gone", "terminating", "terminated", 2, 3)
        life = Life("gone", "user", "gone", finished=True)
        life.accepted += [Accepted(CREATE, "gone", ("g1",), "as created"), Accepted(DELETE, "gone", ("g2",))]
        self.ledger.begin(life)
        self._documents("gone", "deleted", "terminated", generation=2, version=3, description="as created")

    def _documents(
        self, key: str, desired: str, status: str, *, generation: int, version: int, description: str
    ) -> None:
        """What the services hold when they have heard everything."""
        known = {"_id": key, "user_id": "user", "desired": desired, "generation": generation, "name": key}
        self.databases["envs"]["environments"].append(
            {**known, "status": status, "version": version, "description": description, "pending_events": []}
        )
        changes = [
            message.data for message in self.messages if message.subject == f"devpocket.env.{key}.status_changed"
        ]
        wishes = [message.data for message in self.messages if message.subject.startswith(f"devpocket.env.{key}.")]
        wish_version = max(data["version"] for data in wishes if "desired" in data)
        self.databases["orchestrator"]["workspaces"].append(
            {
                **known,
                "version": wish_version,
                "observed": {"said": desired, "generation": generation},
                "lease": {"holder": None, "until": utc_now() - timedelta(days=1)},
                "next_reconcile_at": None if desired == "deleted" else utc_now(),
            }
        )
        self.databases["terminal"]["environments"].append(
            {
                **{"_id": key, "desired": desired, "wish_version": wish_version, "wish_generation": generation},
                **{"status": status, "status_version": changes[-1]["version"]},
                "status_generation": changes[-1]["generation"],
            }
        )

    def _terminal_session(self) -> None:
        for name in ("session_opened", "session_closed"):
            self.say(f"terminal.{name}", "alive", session_id="shell")
        session = {"_id": "shell", "environment_id": "alive", "state": "closed", "pending_events": []}
        self.databases["terminal"]["sessions"].append(session)

    def _poison(self) -> None:
        sequence = self.messages[-1].sequence + 1
        self.messages.append(Message(sequence, "devpocket.env.alive.created", new_id(), None))
        self.ledger.poison.append(Poison(sequence, "devpocket.env.alive.created", "no JSON"))
        for consumer in ("orchestrator-environments", "terminal-environments"):
            self.dead.append(DeadLetter(consumer, sequence, "MalformedEventError"))

    def document(self, service: str, collection: str, key: str) -> dict[str, Any]:
        """One document, to be changed."""
        return next(item for item in self.databases[service][collection] if item["_id"] == key)

    def remove(self, name: str, subject: str = "alive") -> None:
        """Take the last event of this kind out of the stream."""
        self.messages.remove(self._last(name, subject))

    def _last(self, name: str, subject: str) -> Message:
        aggregate, event = name.split(".")
        wanted = f"devpocket.{aggregate}.{subject}.{event}"
        return [message for message in self.messages if message.subject == wanted and message.event is not None][-1]

    def repeat(self, name: str, subject: str = "alive", **changes: Any) -> None:
        """Say the last one of this kind once more, under an id of its own."""
        last = self._last(name, subject)
        assert last.event is not None
        self.say(name, subject, last.event.correlationid or "", **{**last.data, **changes})

    def verdict(self) -> set[tuple[str, str]]:
        """Kinds of violations, and about what."""
        return {(found.kind, found.about) for found in violations(self.evidence(), self.ledger)}

    def evidence(self) -> Evidence:
        """What an inspection finds."""
        return Evidence(
            self.messages, self.dead, self.consumers, self.databases, self.things, self.sandboxes, utc_now()
        )
