"""Who may do what, in one table and one function. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

from libs.common.contracts.identity import Scope


class Rule(Enum):
    """Who may call an operation."""

    PUBLIC = "everybody, whatever they send as a credential"
    ANY = "any user, and any API key: every scope includes reading"
    SIGNED_IN = "who signed in; no API key"
    ENVIRONMENTS = "any user; an API key with the scope environments"
    TERMINAL = "any user; an API key with the scope terminal"
    ADMIN = "an administrator; an administrator's API key with the scope admin"


class User(StrEnum):
    """The accounts of the play. `OWNER` has an environment, a device and an API key; `OTHER` is a stranger to them."""

    OWNER = "owner"
    OTHER = "other"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with a credential. `user` is None when it must be worth nothing, `scope` when it is no API key.

    `tried_once`: one operation of each service is enough, as it never gets past the first check of a credential.
    """

    name: str
    authorization: str | None = field(repr=False)
    user: User | None = None
    scope: Scope | None = None
    tried_once: bool = False

    @property
    def credential(self) -> str | None:
        """What comes after `Bearer`; None without one."""
        scheme, _, rest = (self.authorization or "").partition(" ")
        return rest if scheme == "Bearer" else None


class Target(StrEnum):
    """Something of the owner's that an operation uses up."""

    ENVIRONMENT = "environment"
    SESSION = "session"
    API_KEY = "api key"


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of the table.

    `owned`: the call names something of the owner's, which for others does not exist. `answer`: the status that all get
    from a public operation. `ends_caller`: an allowed call is made by a throw-away account. `uses_up`: it gets a target
    of its own. `endless`: the answer is a stream. `stops`: the owner's environment is down from then on, also for those
    below, which `finds_it_down` and so change nothing. Values in braces are filled in from what the owner has.
    """

    method: str
    path: str
    rule: Rule
    body: dict[str, Any] | None = None
    query: str = ""
    owned: bool = False
    answer: int | None = None
    ends_caller: bool = False
    uses_up: Target | None = None
    endless: bool = False
    stops: bool = False
    finds_it_down: bool = False
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.path}{f' ({self.variant})' if self.variant else ''}"

    @property
    def depends_on_body(self) -> bool:
        """Whether the scope that a key needs is to be read in the body first."""
        return self.rule is Rule.TERMINAL

    @property
    def is_harmless(self) -> bool:
        """Whether allowed calls may be made at the same time."""
        return self.method == "GET" or self.rule is Rule.PUBLIC or self.finds_it_down


class Verdict(Enum):
    """What a caller is told."""

    UNAUTHENTICATED = 401
    FORBIDDEN = 403
    NOT_FOUND = 404
    ALLOWED = "neither 401 nor 403"


def verdict(operation: Operation, caller: Caller) -> Verdict:
    """What this caller must be told."""
    if operation.rule is Rule.PUBLIC:
        return Verdict.ALLOWED
    if caller.user is None:
        return Verdict.UNAUTHENTICATED
    if not _may(operation.rule, caller):
        return Verdict.FORBIDDEN
    if operation.owned and caller.user is not User.OWNER:
        return Verdict.NOT_FOUND
    return Verdict.ALLOWED


def _may(rule: Rule, caller: Caller) -> bool:
    if rule is Rule.ADMIN and caller.user is not User.ADMIN:
        return False
    scopes: dict[Rule, set[Scope]] = {
        Rule.ANY: set(Scope),
        Rule.SIGNED_IN: set(),
        Rule.ENVIRONMENTS: {Scope.ENVIRONMENTS},
        Rule.TERMINAL: {Scope.TERMINAL},
        Rule.ADMIN: {Scope.ADMIN},
    }
    return caller.scope is None or caller.scope in scopes[rule]


def objection(operation: Operation, caller: Caller, status: int) -> str | None:
    """What is wrong with this answer, or None."""
    expected = verdict(operation, caller)
    if expected is not Verdict.ALLOWED:
        fits = status == expected.value
    elif operation.answer is not None:
        fits = status == operation.answer
    else:
        # What is there and is the caller's own must not look like a stranger's.
        fits = status < 500 and status not in ({401, 403, 404} if operation.owned else {401, 403})
    wanted = operation.answer or expected.value
    return None if fits else f"{caller.name} got {status}, not {wanted}"
