"""Who may open which WebSocket: the answer to the handshake, for every caller and every way to bring a credential."""

from __future__ import annotations

import asyncio
import secrets

import aiohttp
import pytest

from tests.e2e.authorization.cast import Cast
from tests.e2e.authorization.operations import NOBODY, PASSWORD
from tests.e2e.authorization.rules import Caller, Operation, Rule, User, Verdict, verdict
from tests.support.phone import Phone, log_in

_OPENED = 101
_RULES = {"terminal": Rule.TERMINAL, "logs": Rule.ANY}
_KINDS = list(_RULES)


@pytest.fixture
async def environment_id(cast: Cast) -> str:
    """The owner's, running."""
    found = cast.values["environment_id"]
    await cast.owner.http.post(f"/api/v1/environments/{found}/start")
    await cast.owner.until(found, "running")
    return found


async def _handshake(cast: Cast, kind: str, environment_id: str, query: str = "", authorization: str = "") -> int:
    """The status of the answer; what opens is closed at once."""
    headers = {"Authorization": authorization} if authorization else {}
    url = f"/api/v1/ws/{kind}/{environment_id}?{query}"
    async with cast.at_once:
        try:
            async with cast.http.ws_connect(url, headers=headers):
                return _OPENED
        except aiohttp.WSServerHandshakeError as refused:
            return refused.status


async def _ticket(phone: Phone, kind: str, environment_id: str) -> str:
    body = {"environment_id": environment_id, "kind": kind}
    answer = await phone.http.post("/api/v1/ws/tickets", json=body)
    assert answer.status_code == 201, answer.text
    ticket: str = answer.json()["ticket"]
    return ticket


@pytest.mark.parametrize("way", ["header", "token"])
@pytest.mark.parametrize("kind", _KINDS)
async def test_everybody_is_told_by_the_handshake(cast: Cast, environment_id: str, kind: str, way: str) -> None:
    rule = Operation("GET", f"/api/v1/ws/{kind}/{{environment_id}}", _RULES[kind], owned=True)

    async def objection(caller: Caller) -> str | None:
        given = {"authorization": caller.authorization or ""}
        if way == "token":
            given = {"query": f"token={caller.credential}" if caller.credential is not None else ""}
        status = await _handshake(cast, kind, environment_id, **given)
        expected = verdict(rule, caller)
        wanted = _OPENED if expected is Verdict.ALLOWED else expected.value
        return None if status == wanted else f"{caller.name} got {status}, not {wanted}"

    # A user may have a few connections only, so who is let in comes one after another.
    let_in = [caller for caller in cast.callers if verdict(rule, caller) is Verdict.ALLOWED]
    refused = [caller for caller in cast.callers if caller not in let_in]
    found = [*await asyncio.gather(*map(objection, refused)), *[await objection(caller) for caller in let_in]]
    objections = [text for text in found if text is not None]
    assert not objections, "; ".join(objections)


@pytest.mark.parametrize("kind", _KINDS)
class TestTickets:
    async def test_open_one_socket_once(self, cast: Cast, environment_id: str, kind: str) -> None:
        ticket = await _ticket(cast.owner, kind, environment_id)
        assert await _handshake(cast, kind, environment_id, f"ticket={ticket}") == _OPENED
        assert await _handshake(cast, kind, environment_id, f"ticket={ticket}") == 401

    async def test_are_good_for_their_own_kind_only(self, cast: Cast, environment_id: str, kind: str) -> None:
        other_kind = next(item for item in _KINDS if item != kind)
        ticket = await _ticket(cast.owner, other_kind, environment_id)
        assert await _handshake(cast, kind, environment_id, f"ticket={ticket}") == 401

    async def test_are_good_for_their_own_environment_only(self, cast: Cast, environment_id: str, kind: str) -> None:
        ticket = await _ticket(cast.owner, kind, environment_id)
        assert await _handshake(cast, kind, NOBODY, f"ticket={ticket}") == 401
        # Used up by the wrong try.
        assert await _handshake(cast, kind, environment_id, f"ticket={ticket}") == 401

    async def test_end_with_the_sign_in_they_were_got_by(self, cast: Cast, environment_id: str, kind: str) -> None:
        owner = cast.owner
        async with log_in(owner.url, owner.account["username"], PASSWORD) as another:
            ticket = await _ticket(another, kind, environment_id)
            await another.http.post("/api/v1/auth/logout")
        assert await _handshake(cast, kind, environment_id, f"ticket={ticket}") == 401

    async def test_are_not_made_up(self, cast: Cast, environment_id: str, kind: str) -> None:
        for made_up in ("", "x", secrets.token_urlsafe(32), cast.owner.token):
            assert await _handshake(cast, kind, environment_id, f"ticket={made_up}") == 401, made_up

    async def test_a_bad_one_is_not_made_good_by_a_token(self, cast: Cast, environment_id: str, kind: str) -> None:
        given = {"query": f"ticket=x&token={cast.owner.token}", "authorization": f"Bearer {cast.owner.token}"}
        assert await _handshake(cast, kind, environment_id, **given) == 401


@pytest.mark.parametrize("kind", _KINDS)
async def test_what_is_not_there_is_like_a_strangers(cast: Cast, kind: str) -> None:
    for user in (User.OWNER, User.ADMIN):
        assert await _handshake(cast, kind, NOBODY, f"token={cast.phones[user].token}") == 404
    assert await _handshake(cast, kind, NOBODY) == 401
    # Who is not known is not told what is wrong with the question either.
    assert await _handshake(cast, kind, NOBODY, "cols=none&tail=none") == 401


async def test_there_are_no_other_sockets(cast: Cast) -> None:
    for path in ("nothing", f"tickets/{NOBODY}"):
        assert await _handshake(cast, path, "", f"token={cast.owner.token}") == 404
