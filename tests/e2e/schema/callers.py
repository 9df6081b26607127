"""Callers of each kind, and what they know: ids of things that exist, passwords that are right."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections import defaultdict
from typing import Any

import requests
from schemathesis import Case, Response

from tests.e2e.schema.accounts import PASSWORD, Account, Api, Headers

_TIMEOUT_S = 60.0
_AUTH = "/api/v1/auth"
EVENT_STREAM = "/api/v1/events"
# They end the session or the account that asks: each such request gets a throw-away one.
ENDS_CALLER = {
    ("POST", f"{_AUTH}/logout"),
    ("POST", f"{_AUTH}/change-password"),
    ("DELETE", f"{_AUTH}/me"),
    ("DELETE", f"{_AUTH}/sessions"),
}
_KUBECONFIG = {
    "current-context": "main",
    "clusters": [{"name": "main", "cluster": {"server": "https://127.0.0.1:9"}}],
    "users": [{"name": "main", "user": {"token": "no-token"}}],
    "contexts": [{"name": "main", "context": {"cluster": "main", "user": "main"}}],
}
# Here an environment that is not known is waited for, a second each time: it may have been made just now.
_WAITED_FOR = re.compile("/environments/{environment_id}/(exec|files|ports)")
_MADE_UP_EVERY = 3
# A cluster that nobody answers for must not get the environments of other tests.
_CLUSTER = {"kubeconfig": _KUBECONFIG, "verify": False, "is_default": False}


class Caller:
    """Sends generated requests as one kind of user, or as nobody.

    Ids made up by a generator are nobody's, so every request that could name something is sent twice: as it was
    generated, and with what this caller knows put in; only now and then both where the former takes its time.
    """

    def __init__(self, api: Api, root: Headers, plan: str | None) -> None:
        self.api = api
        self._root = root
        self._plan = plan
        self._account = Account(api, self._promote)
        self._spare = Account(api, self._promote)
        self._numbers = itertools.count()
        self._turns: defaultdict[tuple[str, str], itertools.count[int]] = defaultdict(itertools.count)
        self._known: dict[str, dict[str, Any]] = {}

    def variants(self, case: Case[Any]) -> list[Case[Any]]:
        """What to send for a generated request."""
        ids, fields = self._ids(case), self._fields(case)
        if not ids and not fields:
            return [case]
        informed = case.derive()
        informed.path_parameters = {**case.path_parameters, **ids}
        if fields and isinstance(case.body, dict):
            informed.body = {**case.body, **fields}
        turn = next(self._turns[case.method, case.path])
        return [informed] if turn % _MADE_UP_EVERY and _WAITED_FOR.search(case.path) else [case, informed]

    def send(self, case: Case[Any]) -> Response:
        """The answer to this one request."""
        account = self._spare if (case.method, case.path) in ENDS_CALLER else self._account
        headers = account.headers if self._plan is not None else {}
        if case.path == EVENT_STREAM:
            return self._beginning(case, headers)
        answer = case.call(self.api.url, session=self.api.session, headers=headers, timeout=_TIMEOUT_S)
        if account is self._spare and answer.status_code < 300:
            account.spoil()
        return answer

    def request(self, method: str, path: str, body: Any) -> requests.Response:
        """The answer to a request that was not generated."""
        url = f"{self.api.url}/api/v1{path}"
        return self.api.session.request(method, url, json=body, headers=self._account.headers, timeout=_TIMEOUT_S)

    def prepare(self) -> None:
        """Make what can be asked for."""
        if self._plan is None:
            return
        mine, user = self._account.headers, self._account.user
        key = {"name": "throw-away", "scopes": ["read"]}
        for use in ("use", "delete"):
            environment = {"name": f"schema-{use}", "template": "python"}
            template = {
                "name": f"schema-{use}-{secrets.token_hex(4)}",
                "display_name": "Throw-away",
                "description": "Of a test",
                "category": "operating_system",
                "docker_image": "python:3",
            }
            cluster = {"name": f"schema-{use}-{secrets.token_hex(4)}", "region": "nowhere", **_CLUSTER}
            self._known[use] = {
                "environment_id": self._environment(mine, environment),
                "key_id": self.api("POST", "/auth/api-keys", mine, key)["id"],
                "session_id": self._other_session(user["username"]),
                "user_id": self.api.sign_up()["id"],
                "template": self.api("POST", "/templates", self._root, template)["name"],
                "cluster": self.api("POST", "/clusters", self._root, cluster)["name"],
                "sequence": 1,
            }

    def tidy(self) -> None:
        """Away with what others on this stack could meet."""
        for cluster in self.api("GET", "/clusters", self._root):
            if cluster["source"] == "registered":
                self.api("DELETE", f"/clusters/{cluster['name']}?force=true", self._root)
        for template in self.api("GET", "/templates", self._root):
            if template["name"].startswith("schema-") and template["status"] != "deprecated":
                self.api("DELETE", f"/templates/{template['name']}", self._root)
        if self._plan is not None:
            self.api("DELETE", f"/users/{self._account.user['id']}", self._root)

    def _beginning(self, case: Case[Any], headers: Headers) -> Response:
        """The stream has no end: its first block must do. An error comes as a whole."""
        request = case.as_transport_kwargs(self.api.url, headers)
        with self.api.session.request(**request, stream=True, timeout=_TIMEOUT_S) as answer:
            content = b""
            for chunk in answer.iter_content(None):
                content += chunk
                if content.endswith(b"\n\n"):
                    break
            return Response(
                answer.status_code,
                {name.lower(): [value] for name, value in answer.headers.items()},
                content,
                answer.request,
                elapsed=answer.elapsed.total_seconds(),
                verify=True,
                encoding=answer.encoding,
            )

    def _promote(self, user_id: str) -> None:
        if self._plan is not None:
            self.api("PATCH", f"/users/{user_id}", self._root, {"subscription_plan": self._plan})

    def _environment(self, headers: Headers, body: dict[str, Any]) -> str:
        """The plan comes to the quota by an event."""
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                environment_id: str = self.api("POST", "/environments", headers, body)["id"]
            except requests.HTTPError as error:
                if error.response.status_code != 403 or time.monotonic() > deadline:
                    raise
            else:
                return environment_id

    def _other_session(self, username: str) -> str:
        headers = {"Authorization": f"Bearer {self.api.sign_in(username)['access_token']}"}
        found: str = next(item["id"] for item in self.api("GET", "/auth/sessions", headers) if item["current"])
        return found

    def _ids(self, case: Case[Any]) -> dict[str, Any]:
        """What the path names, by parameter; of what is deleted something that nobody else needs."""
        name = "template" if case.path.startswith("/api/v1/templates/") else "cluster"
        found = {}
        for parameter in case.path_parameters:
            use = "delete" if case.method == "DELETE" and case.path.endswith(f"{{{parameter}}}") else "use"
            known = self._known.get(use, {})
            kind = name if parameter == "name" else parameter
            if kind in known:
                found[parameter] = known[kind]
        return found

    def _fields(self, case: Case[Any]) -> dict[str, Any]:
        """Of the body."""
        if not isinstance(case.body, dict):
            return {}
        match case.method, case.path:
            case "POST", "/api/v1/auth/register":
                return {"username": f"user-{secrets.token_hex(5)}", "password": PASSWORD}
            case "POST", "/api/v1/auth/login":
                return {"username_or_email": self._account.user["username"], "password": PASSWORD}
            case "POST", "/api/v1/auth/refresh":
                return {"refresh_token": self._account.refresh_token}
        if self._plan is None:
            return {}
        match case.method, case.path:
            case "DELETE", "/api/v1/auth/me":
                return {"password": PASSWORD}
            case "POST", "/api/v1/auth/change-password":
                return {"current_password": PASSWORD, "new_password": f"{PASSWORD}-2"}
            case "POST", "/api/v1/ws/tickets":
                return {"environment_id": self._known["use"]["environment_id"]}
            case "POST", "/api/v1/environments" if self._plan != "admin":
                return {"name": f"schema-{next(self._numbers)}", "template": "python", "region": None}
            case "POST", "/api/v1/templates":
                return {"name": f"schema-{secrets.token_hex(4)}", "docker_image": "python:3"}
            case "POST", "/api/v1/clusters":
                return {"name": f"schema-{secrets.token_hex(4)}", **_CLUSTER}
            case (("PUT" | "PATCH"), "/api/v1/clusters/{name}"):
                return _CLUSTER
        return {}
