"""Every operation of the API and who may call it. One that is missing here fails a test."""

from __future__ import annotations

from typing import Any

from tests.e2e.authorization.rules import Operation, Rule, Target

PASSWORD = "Passw0rd-of-a-test"
NOBODY = "0" * 32
_AUTH = "/api/v1/auth"
_ENVIRONMENT = "/api/v1/environments/{environment_id}"
_NO_KUBECONFIG: dict[str, Any] = {"kubeconfig": {"clusters": [], "users": [], "contexts": []}}
_TEMPLATE = {
    "name": "python",
    "display_name": "Python",
    "description": "Taken",
    "category": "programming_language",
    "docker_image": "python:3.12",
}


def _public(method: str, path: str, answer: int, body: dict[str, Any] | None = None) -> Operation:
    return Operation(method, path, Rule.PUBLIC, body, answer=answer)


def _own(method: str, path: str, rule: Rule, body: dict[str, Any] | None = None, **more: Any) -> Operation:
    return Operation(method, path, rule, body, owned=True, **more)


def _down(method: str, path: str, rule: Rule, body: dict[str, Any] | None = None, query: str = "") -> Operation:
    return _own(method, path, rule, body, query=query, finds_it_down=True)


def _admin(method: str, path: str, body: dict[str, Any] | None = None, query: str = "") -> Operation:
    return Operation(method, path, Rule.ADMIN, body, query)


def _ticket(kind: str, rule: Rule) -> Operation:
    body = {"environment_id": "{environment_id}", "kind": kind}
    return _own("POST", "/api/v1/ws/tickets", rule, body, variant=kind)


_PUBLIC = (
    _public("GET", "/health", 200),
    _public("GET", "/health/live", 200),
    _public("GET", "/health/ready", 200),
    _public("GET", f"{_AUTH}/.well-known/jwks.json", 200),
    _public("POST", f"{_AUTH}/register", 400, {"username": "taken", "email": "{email}", "password": PASSWORD}),
    _public("POST", f"{_AUTH}/login", 200, {"username_or_email": "{email}", "password": PASSWORD}),
    _public("POST", f"{_AUTH}/google", 503, {"token": "no-token"}),
    # 401, but by a code of its own: see test_authorization.py.
    _public("POST", f"{_AUTH}/refresh", 401, {"refresh_token": "no-token"}),
    _public("POST", f"{_AUTH}/resend-verification", 202, {"email": "nobody@example.com"}),
    _public("GET", f"{_AUTH}/verify-email", 200),
    _public("POST", f"{_AUTH}/verify-email", 400, {"token": "no-token"}),
    _public("POST", f"{_AUTH}/forgot-password", 202, {"email": "nobody@example.com"}),
    _public("GET", f"{_AUTH}/reset-password", 200),
    _public("POST", f"{_AUTH}/reset-password", 400, {"token": "no-token", "new_password": PASSWORD}),
)
_ACCOUNT = (
    Operation("GET", f"{_AUTH}/me", Rule.ANY),
    Operation("DELETE", f"{_AUTH}/me", Rule.SIGNED_IN, {"password": PASSWORD}, ends_caller=True),
    Operation(
        "POST",
        f"{_AUTH}/change-password",
        Rule.SIGNED_IN,
        {"current_password": PASSWORD, "new_password": f"{PASSWORD}-2"},
        ends_caller=True,
    ),
    Operation("POST", f"{_AUTH}/logout", Rule.SIGNED_IN, ends_caller=True),
    Operation("GET", f"{_AUTH}/sessions", Rule.SIGNED_IN),
    Operation("DELETE", f"{_AUTH}/sessions", Rule.SIGNED_IN, ends_caller=True),
    _own("DELETE", f"{_AUTH}/sessions/{{session_id}}", Rule.SIGNED_IN, uses_up=Target.SESSION),
    Operation("GET", f"{_AUTH}/api-keys", Rule.SIGNED_IN),
    Operation("POST", f"{_AUTH}/api-keys", Rule.SIGNED_IN, {"name": "made", "scopes": ["read"]}),
    _own("DELETE", f"{_AUTH}/api-keys/{{key_id}}", Rule.SIGNED_IN, uses_up=Target.API_KEY),
)
_ENVIRONMENTS = (
    Operation("GET", "/api/v1/environments", Rule.ANY),
    # With a template that is not there, which shows only to who may create one.
    Operation("POST", "/api/v1/environments", Rule.ENVIRONMENTS, {"name": "more", "template": "no-such-template"}),
    _own("GET", _ENVIRONMENT, Rule.ANY),
    _own("GET", f"{_ENVIRONMENT}/metrics", Rule.ANY),
    _own("GET", f"{_ENVIRONMENT}/events", Rule.ANY),
    _own("PUT", _ENVIRONMENT, Rule.ENVIRONMENTS, {"description": "changed"}),
    _own("PATCH", _ENVIRONMENT, Rule.ENVIRONMENTS, {"description": "changed"}),
    _own("POST", f"{_ENVIRONMENT}/start", Rule.ENVIRONMENTS),
    _own("POST", f"{_ENVIRONMENT}/restart", Rule.ENVIRONMENTS),
    _own("POST", f"{_ENVIRONMENT}/stop", Rule.ENVIRONMENTS, stops=True),
    _down("GET", f"{_ENVIRONMENT}/files", Rule.ANY),
    _down("PUT", f"{_ENVIRONMENT}/files", Rule.TERMINAL, query="archive=tar.gz"),
    _down("GET", f"{_ENVIRONMENT}/files/{{nothing}}", Rule.ANY),
    _down("PUT", f"{_ENVIRONMENT}/files/{{nothing}}", Rule.TERMINAL),
    _down("DELETE", f"{_ENVIRONMENT}/files/{{nothing}}", Rule.TERMINAL),
    _down("GET", f"{_ENVIRONMENT}/ports", Rule.ANY),
    _down("POST", f"{_ENVIRONMENT}/exec", Rule.TERMINAL, {"command": ["true"]}),
    _own("DELETE", _ENVIRONMENT, Rule.ENVIRONMENTS, uses_up=Target.ENVIRONMENT),
    Operation("GET", "/api/v1/events", Rule.ANY, endless=True),
    Operation("GET", "/api/v1/regions", Rule.ANY),
    Operation("GET", "/api/v1/terminal/sessions", Rule.ANY),
    Operation("GET", "/api/v1/terminal/sessions/{nothing}", Rule.ANY),
    Operation("DELETE", "/api/v1/terminal/sessions/{nothing}", Rule.TERMINAL),
    _ticket("terminal", Rule.TERMINAL),
    _ticket("logs", Rule.ANY),
    _ticket("preview", Rule.TERMINAL),
    Operation("GET", "/api/v1/templates", Rule.ANY),
    Operation("GET", "/api/v1/templates/{template}", Rule.ANY),
)
_ADMINISTRATION = (
    _admin("POST", "/api/v1/templates", _TEMPLATE),
    _admin("PUT", "/api/v1/templates/{nothing}", {"description": "changed"}),
    _admin("DELETE", "/api/v1/templates/{nothing}"),
    _admin("GET", "/api/v1/users"),
    _admin("PATCH", "/api/v1/users/{nothing}", {"unlock": True}),
    _admin("DELETE", "/api/v1/users/{nothing}"),
    _admin("GET", "/api/v1/audit"),
    _admin("GET", "/api/v1/audit/export"),
    _admin("GET", "/api/v1/clusters"),
    _admin("POST", "/api/v1/clusters", {"name": "more", "region": "more", **_NO_KUBECONFIG}),
    _admin("GET", "/api/v1/clusters/{nothing}"),
    _admin("PUT", "/api/v1/clusters/{nothing}", {"capacity": 1}),
    _admin("PATCH", "/api/v1/clusters/{nothing}", {"capacity": 1}),
    _admin("DELETE", "/api/v1/clusters/{nothing}"),
    _admin("POST", "/api/v1/clusters/{nothing}/drain"),
    _admin("GET", "/api/v1/clusters/{nothing}/health"),
    _admin("GET", "/api/v1/admin/events", query="limit=1"),
    _admin("GET", "/api/v1/admin/events/export", query="since=1s"),
    _admin("GET", "/api/v1/admin/events/{place}"),
    _admin("GET", "/api/v1/admin/environments/{environment_id}/timeline"),
    _admin("GET", "/api/v1/admin/environments/{environment_id}/state"),
    _admin("GET", "/api/v1/admin/dead-letters"),
    _admin("GET", "/api/v1/admin/dead-letters/{no_place}"),
    _admin("POST", "/api/v1/admin/dead-letters/{no_place}/redrive"),
    *(
        _admin("POST", f"/api/v1/admin/replays/{service}", query=f"environment={NOBODY}")
        for service in ("auth", "envs", "orchestrator", "terminal")
    ),
)
OPERATIONS = (*_PUBLIC, *_ACCOUNT, *_ENVIRONMENTS, *_ADMINISTRATION)


def same_path(path: str) -> str:
    """The path with its variables' names taken away: here they say what is filled in."""
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))
