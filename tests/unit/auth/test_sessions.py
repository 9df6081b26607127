"""Refreshing and ending sessions, on fakes."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.identity import Plan
from libs.common.contracts.users import UserSessionsRevoked
from services.auth.domain.sessions import RefreshToken
from services.auth.errors import InvalidRefreshTokenError
from services.auth.service.accounts import AccountChange, NewAccount
from services.auth.service.sessions import Tokens, sessions_revoked
from tests.fakes.auth import PHONE, AuthOnFakes

PASSWORD = "Correct-Horse-1"


async def signed_in(auth: AuthOnFakes) -> tuple[str, Tokens]:
    user = await auth.accounts.register(NewAccount("ada", "ada@example.com", PASSWORD))
    return user.id, await auth.sign_in.with_password("ada", PASSWORD, PHONE)


def session_id(tokens: Tokens) -> str:
    return tokens.access.text.split("/")[1]


class TestRefresh:
    async def test_each_token_works_once_and_the_session_stays(self) -> None:
        auth = AuthOnFakes()
        _, first = await signed_in(auth)
        second = await auth.sessions.refresh(str(first.refresh), None)
        third = await auth.sessions.refresh(str(second.refresh), None)
        assert session_id(third) == session_id(first)
        assert len({str(tokens.refresh) for tokens in (first, second, third)}) == 3

    @given(uses=st.lists(st.integers(min_value=0, max_value=5), min_size=1, max_size=12))
    @settings(max_examples=60, deadline=None)
    def test_in_whatever_order_only_the_newest_works_and_reuse_ends_all(self, uses: list[int]) -> None:
        async def play() -> None:
            auth = AuthOnFakes()
            _, tokens = await signed_in(auth)
            issued, alive = [tokens], True
            for use in uses:
                position = min(use, len(issued) - 1)
                newest = position == len(issued) - 1
                try:
                    issued.append(await auth.sessions.refresh(str(issued[position].refresh), None))
                except InvalidRefreshTokenError:
                    assert not (alive and newest)
                    alive = False
                else:
                    assert alive
                    assert newest
            (session,) = auth.stored_sessions.stored.values()
            revoked = [UserSessionsRevoked(user_id=session.user_id, session_ids=[session.id], reason="refresh_reuse")]
            assert auth.payloads(UserSessionsRevoked) == ([] if alive else revoked)
            assert (session_id(tokens) in auth.dead.ids) is not alive

        asyncio.run(play())

    async def test_of_parallel_uses_at_most_one_succeeds(self) -> None:
        auth = AuthOnFakes()
        _, tokens = await signed_in(auth)
        answers = await asyncio.gather(
            *(auth.sessions.refresh(str(tokens.refresh), None) for _ in range(20)), return_exceptions=True
        )
        assert sum(isinstance(answer, Tokens) for answer in answers) == 1
        assert session_id(tokens) in auth.dead.ids

    async def test_a_made_up_token_ends_nothing(self) -> None:
        auth = AuthOnFakes()
        _, tokens = await signed_in(auth)
        for text in (str(RefreshToken.new()), "garbage", "", "é", "\x00", session_id(tokens)):
            with pytest.raises(InvalidRefreshTokenError):
                await auth.sessions.refresh(text, None)
        assert auth.dead.ids == set()
        await auth.sessions.refresh(str(tokens.refresh), None)

    async def test_an_unused_session_ends_and_a_used_one_goes_on(self) -> None:
        auth = AuthOnFakes()
        _, tokens = await signed_in(auth)
        for _ in range(3):
            auth.clock.advance(days=29)
            tokens = await auth.sessions.refresh(str(tokens.refresh), None)
        auth.clock.advance(days=30)
        with pytest.raises(InvalidRefreshTokenError):
            await auth.sessions.refresh(str(tokens.refresh), None)

    async def test_another_plan_is_in_the_next_token(self) -> None:
        auth = AuthOnFakes()
        user_id, tokens = await signed_in(auth)
        await auth.accounts.administer(user_id, AccountChange(plan=Plan.PRO), by="admin")
        assert (await auth.sessions.refresh(str(tokens.refresh), None)).access.text.endswith("/pro")


class TestLogout:
    async def test_ends_this_session_only_and_tells_before_it_returns(self) -> None:
        auth = AuthOnFakes()
        user_id, one = await signed_in(auth)
        other = await auth.sign_in.with_password("ada", PASSWORD, PHONE)
        await auth.sessions.logout(user_id, session_id(one))
        assert auth.dead.ids == {session_id(one)}
        assert auth.stored_sessions.announced == [session_id(one)]
        assert auth.payloads(UserSessionsRevoked) == [
            UserSessionsRevoked(user_id=user_id, session_ids=[session_id(one)], reason="logout")
        ]
        with pytest.raises(InvalidRefreshTokenError):
            await auth.sessions.refresh(str(one.refresh), None)
        await auth.sessions.refresh(str(other.refresh), None)

    async def test_twice_is_one_event_but_tells_again(self) -> None:
        auth = AuthOnFakes()
        user_id, tokens = await signed_in(auth)
        auth.clock.now += timedelta(seconds=1)
        for _ in range(2):
            await auth.sessions.logout(user_id, session_id(tokens))
        assert len(auth.payloads(UserSessionsRevoked)) == 1
        assert len(auth.stored_sessions.announced) == 2


class TestSessionsRevoked:
    def test_no_event_is_too_large_for_the_bus(self) -> None:
        ids = [f"{number:032x}" for number in range(25_000)]
        events = sessions_revoked("u", ids, "deactivated")
        assert [i for event in events for i in event.model_dump()["session_ids"]] == ids
        assert max(len(event.model_dump_json()) for event in events) < 512 * 1024
