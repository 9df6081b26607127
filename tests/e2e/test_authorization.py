"""Who may do what: every operation, called by everybody. Rules and table are in tests/e2e/authorization."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.e2e.authorization.cast import Answer, Cast
from tests.e2e.authorization.operations import OPERATIONS, same_path
from tests.e2e.authorization.rules import Caller, Operation, Rule, User, Verdict, objection, verdict
from tests.support.stack import LocalStack

_PROTECTED = [operation for operation in OPERATIONS if operation.rule is not Rule.PUBLIC]
_ONE_OF_EACH_SERVICE = [
    ("GET", "/api/v1/auth/me"),
    ("GET", "/api/v1/environments"),
    ("GET", "/api/v1/regions"),
    ("POST", "/api/v1/ws/tickets"),
]
_WITH_BODY = [operation for operation in _PROTECTED if operation.body is not None]


async def _merged_openapi(stack: LocalStack) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=stack.url) as client:
        document: dict[str, Any] = (await client.get("/openapi.json")).json()
    return document


async def _call(cast: Cast, operation: Operation, caller: Caller) -> Answer:
    values, authorization = cast.values, caller.authorization
    if verdict(operation, caller) is Verdict.ALLOWED:
        if operation.uses_up is not None:
            values = {**values, **await cast.fresh(operation.uses_up)}
        if operation.ends_caller and caller.user is not None:
            authorization = await cast.stand_in(caller.user)
    body = operation.body and {name: _filled(value, values) for name, value in operation.body.items()}
    url = f"{operation.path.format_map(values)}?{operation.query}"
    return await cast.ask(operation.method, url, authorization, json=body)


def _filled(value: Any, values: dict[str, str]) -> Any:
    return value.format_map(values) if isinstance(value, str) else value


async def _objections(cast: Cast, operation: Operation) -> list[str]:
    async def one(caller: Caller) -> str | None:
        return objection(operation, caller, (await _call(cast, operation, caller)).status)

    callers = [caller for caller in cast.callers if _is_worth_trying(operation, caller)]
    together = [
        caller for caller in callers if operation.is_harmless or verdict(operation, caller) is not Verdict.ALLOWED
    ]
    found = await asyncio.gather(*map(one, together))
    found += [await one(caller) for caller in callers if caller not in together]
    return [text for text in found if text is not None]


def _is_worth_trying(operation: Operation, caller: Caller) -> bool:
    """A public operation does not look at credentials, so a few kinds of them show that."""
    if operation.rule is not Rule.PUBLIC:
        return not caller.tried_once
    return caller.name in {"nobody", "owner", "owner's key read", "an expired token", "a revoked API key"}


async def test_the_table_names_every_operation(stack: LocalStack) -> None:
    document = await _merged_openapi(stack)
    offered = {
        (method.upper(), same_path(path), "security" not in operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    assert {(item.method, same_path(item.path), item.rule is Rule.PUBLIC) for item in OPERATIONS} == offered


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_everybody_is_told_what_the_table_says(cast: Cast, operation: Operation) -> None:
    objections = await _objections(cast, operation)
    assert not objections, "; ".join(objections)
    if operation.stops:
        await cast.until_down()


class TestOrder:
    """Whoever may not ask learns nothing about how to ask."""

    @pytest.mark.parametrize("operation", _PROTECTED, ids=str)
    async def test_authorization_comes_before_the_form_of_the_question(self, cast: Cast, operation: Operation) -> None:
        path = operation.path.format_map({**cast.values, "place": "none", "no_place": "none"})
        url = f"{path}?limit=none&since=never&cursor=!&hours=none&force=perhaps&keep_current=perhaps"
        for refused in (Verdict.UNAUTHENTICATED, Verdict.FORBIDDEN):
            caller = next((caller for caller in cast.callers if verdict(operation, caller) is refused), None)
            if caller is not None and not (operation.depends_on_body and refused is Verdict.FORBIDDEN):
                answer = await cast.ask(operation.method, url, caller.authorization, json={"wrong": ["shape"]})
                assert answer.status == refused.value, (caller.name, answer.body)

    @pytest.mark.parametrize("operation", _WITH_BODY, ids=str)
    async def test_authorization_comes_before_the_parsing_of_the_body(self, cast: Cast, operation: Operation) -> None:
        headers = {"Content-Type": "application/json"}
        path = operation.path.format_map(cast.values)
        answer = await cast.ask(operation.method, path, data=b'{"no": JSON', headers=headers)
        assert answer.status == 401, answer.body


class TestCredentials:
    async def test_a_forged_token_fails_only_because_of_what_is_wrong_with_it(self, cast: Cast) -> None:
        answer = await cast.ask("GET", "/api/v1/auth/me", f"Bearer {cast.forger.signed()}")
        assert (answer.status, answer.json()["id"]) == (200, cast.owner.account["id"])

    @pytest.mark.parametrize(("method", "path"), _ONE_OF_EACH_SERVICE)
    async def test_every_service_refuses_what_is_no_good_credential(self, cast: Cast, method: str, path: str) -> None:
        bad = [caller for caller in cast.callers if caller.user is None]
        answers = await asyncio.gather(*(cast.ask(method, path, caller.authorization) for caller in bad))
        told = {
            caller.name: (answer.status, answer.json()["code"]) for caller, answer in zip(bad, answers, strict=True)
        }
        assert told == dict.fromkeys(told, (401, "unauthenticated"))

    async def test_a_refresh_token_that_is_none_is_the_question_of_a_public_operation(self, cast: Cast) -> None:
        answer = await cast.ask("POST", "/api/v1/auth/refresh", json={"refresh_token": "no-token"})
        assert answer.json()["code"] == "invalid_refresh_token"

    async def test_no_credential_works_in_the_query_of_an_http_call(self, cast: Cast) -> None:
        for name in ("token", "access_token", "ticket", "api_key"):
            answer = await cast.ask("GET", f"/api/v1/auth/me?{name}={cast.owner.token}")
            assert answer.status == 401, name


async def test_after_all_that_the_owner_still_has_everything(cast: Cast) -> None:
    owner = cast.owner
    environment = (await owner.http.get(f"/api/v1/environments/{cast.values['environment_id']}")).json()
    assert (environment["user_id"], environment["description"]) == (owner.account["id"], "changed")
    sessions = {item["id"] for item in (await owner.http.get("/api/v1/auth/sessions?limit=100")).json()}
    keys = {item["id"] for item in (await owner.http.get("/api/v1/auth/api-keys")).json()}
    assert cast.values["session_id"] in sessions
    assert cast.values["key_id"] in keys
    assert (await cast.phones[User.ADMIN].http.get("/api/v1/auth/me")).status_code == 200
