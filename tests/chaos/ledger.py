"""What the users of a run asked for and were promised: the truth that the system is checked against afterwards."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

CREATE, START, STOP, RESTART, DELETE, UPDATE = "create", "start", "stop", "restart", "delete", "update"

WISHES = {
    CREATE: "devpocket.env.created.v1",
    START: "devpocket.env.start_requested.v1",
    STOP: "devpocket.env.stop_requested.v1",
    RESTART: "devpocket.env.restart_requested.v1",
    DELETE: "devpocket.env.delete_requested.v1",
    UPDATE: "devpocket.env.updated.v1",
}
"""The type of event that each kind of request leads to."""

WANTED = {CREATE: "running", START: "running", RESTART: "running", STOP: "stopped", DELETE: "deleted"}
"""The desired state that each kind of request asks for; an update asks for none."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be. `kind` is one of KINDS, `about` the id of what it happened to."""

    kind: str
    about: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind:<10} {self.about}  {self.what}"


LOST, DOUBLED, STUCK, DRIFT, ORPHAN, LEASE, LETTER, ANSWER = (
    *("lost", "doubled", "stuck", "drift", "orphan", "lease", "letter", "answer"),
)
KINDS = (LOST, DOUBLED, STUCK, DRIFT, ORPHAN, LEASE, LETTER, ANSWER)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request that was answered with success.

    `attempts` are the ids of all requests that were made for it, and therefore correlation ids of events; all but the
    last one got no answer that says whether they took effect. `description` is what an update sets.
    """

    kind: str
    environment_id: str
    attempts: tuple[str, ...]
    description: str | None = None


@dataclass(slots=True)
class Life:
    """One environment as its user knows it: what was accepted, in order."""

    environment_id: str
    user_id: str
    name: str
    accepted: list[Accepted] = field(default_factory=list)
    finished: bool = False

    @property
    def wanted(self) -> str:
        """The desired state, by the last accepted request that speaks of it."""
        return next(WANTED[item.kind] for item in reversed(self.accepted) if item.kind in WANTED)

    @property
    def description(self) -> str | None:
        """The last one that was accepted."""
        return next((item.description for item in reversed(self.accepted) if item.description is not None), None)


@dataclass(frozen=True, slots=True)
class Poison:
    """A message nobody can handle, and where it stands in the stream."""

    sequence: int
    subject: str
    flaw: str


@dataclass(slots=True)
class Ledger:
    """Everything that was accepted, and what was noticed while it ran."""

    lives: dict[str, Life] = field(default_factory=dict)
    user_ids: list[str] = field(default_factory=list)
    sign_ins: list[str] = field(default_factory=list)
    dead_tokens: list[str] = field(default_factory=list)
    poison: list[Poison] = field(default_factory=list)
    noticed: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def begin(self, life: Life) -> None:
        """An environment exists from now on."""
        self.lives[life.environment_id] = life

    def notice(self, kind: str, about: str, what: str) -> None:
        """A violation that shows at once."""
        self.noticed.append(Violation(kind, about, what))

    @property
    def accepted(self) -> int:
        """Requests that were accepted."""
        return sum(len(life.accepted) for life in self.lives.values())
