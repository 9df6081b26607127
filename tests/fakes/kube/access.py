"""Who may call what: bearer tokens, optional rules as in RBAC, and a record of every call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.fakes.kube.errors import StatusError, details_of, unauthorized
from tests.fakes.kube.resources import Resource


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """One permission. `*` matches everything; `subresource` is empty for the resource itself."""

    group: str
    resource: str
    subresource: str
    verb: str

    def allows(self, call: Call) -> bool:
        """Whether this rule covers the call."""
        pairs = (
            (self.group, call.group),
            (self.resource, call.resource),
            (self.subresource, call.subresource),
            (self.verb, call.verb),
        )
        return all(mine in ("*", theirs) for mine, theirs in pairs)


@dataclass(frozen=True, slots=True, order=True)
class Call:
    """What somebody asked for, as an authorizer sees it. `namespaced` says whether it named a namespace."""

    verb: str
    group: str
    resource: str
    subresource: str
    namespaced: bool


class Access:
    """Checks tokens and rules. `calls` holds every distinct call of each user, also the refused ones."""

    def __init__(self, tokens: dict[str, str]) -> None:
        self._users = {token: user for user, token in tokens.items()}
        self._rules: dict[str, list[Rule]] = {}
        self.calls: dict[str, set[Call]] = {}

    def add_user(self, user: str, token: str, rules: Iterable[Rule] | None = None) -> None:
        """Another account; without rules it may do everything."""
        self._users[token] = user
        if rules is not None:
            self._rules[user] = list(rules)

    def allow_only(self, user: str, rules: Iterable[Rule] | None) -> None:
        """From now on `user` may do only this; None lifts the restriction."""
        if rules is None:
            self._rules.pop(user, None)
        else:
            self._rules[user] = list(rules)

    def revoke(self, user: str) -> None:
        """The user's token is no longer good."""
        self._users = {token: name for token, name in self._users.items() if name != user}

    def user_of(self, header: str | None) -> str:
        """The account of an Authorization header. Raises 401."""
        kind, _, token = (header or "").partition(" ")
        if kind.lower() != "bearer" or token.strip() not in self._users:
            raise unauthorized()
        return self._users[token.strip()]

    def permits(self, user: str, call: Call) -> bool:
        """Whether the rules let it through."""
        rules = self._rules.get(user)
        return rules is None or any(rule.allows(call) for rule in rules)

    def authorize(
        self, user: str, verb: str, resource: Resource, subresource: str, namespace: str | None, name: str
    ) -> None:
        """Record the call. Raises 403."""
        call = Call(verb, resource.group, resource.plural, subresource, namespace is not None)
        self.calls.setdefault(user, set()).add(call)
        if self.permits(user, call):
            return
        target = f"{resource.plural}/{subresource}" if subresource else resource.plural
        where = f'in the namespace "{namespace}"' if namespace is not None else "at the cluster scope"
        shown = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
        subject = f'{shown} "{name}"' if name else shown
        raise StatusError(
            403,
            "Forbidden",
            f'{subject} is forbidden: User "{user}" cannot {verb} resource "{target}" in API group '
            f'"{resource.group}" {where}',
            details=details_of(resource, name),
        )
