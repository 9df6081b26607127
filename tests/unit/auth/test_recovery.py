"""Verified addresses, and passwords that are changed or were forgotten."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from libs.common.contracts.identity import Scope
from libs.common.contracts.users import (
    UserApiKeyRevoked,
    UserMailRequested,
    UserPasswordChanged,
    UserRegistered,
    UserSessionsRevoked,
    UserUpdated,
)
from libs.common.errors import TemporaryError
from services.auth.domain.api_keys import WantedKey
from services.auth.domain.users import User
from services.auth.errors import (
    AccountLockedError,
    IncorrectCredentialsError,
    IncorrectPasswordError,
    InvalidLinkError,
    InvalidRefreshTokenError,
    MailNotConfiguredError,
)
from services.auth.ports import MailRefusedError, MailUnavailableError
from services.auth.service.accounts import AccountChange, NewAccount
from tests.fakes.auth import PHONE, AuthOnFakes

EMAIL = "ada@example.com"
PASSWORD = "Correct-Horse-1"
ANOTHER = "Another-Horse-2"


@pytest.fixture
def auth() -> AuthOnFakes:
    return AuthOnFakes()


async def a_user(auth: AuthOnFakes) -> User:
    return await auth.accounts.register(NewAccount("ada", EMAIL, PASSWORD))


async def deliver(auth: AuthOnFakes) -> None:
    """Send what the last event asks for, as the consumer does."""
    event = auth.users.events[-1]
    data = event.payload()
    purpose = data.purpose if isinstance(data, UserMailRequested) else "verify_email"
    await auth.mails.send(event.subject, purpose, event.id, auth.clock.now)


def mailed_token(auth: AuthOnFakes) -> str:
    found = re.search(r"\?token=(\S+)", auth.sent.mails[-1].text)
    assert found is not None
    return found[1]


async def reset_token(auth: AuthOnFakes) -> str:
    await auth.recovery.ask_for_mail(EMAIL, "reset_password")
    await deliver(auth)
    return mailed_token(auth)


class TestVerification:
    async def test_a_new_account_is_verified_by_its_mail_once(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        assert isinstance(auth.users.events[-1].payload(), UserRegistered)
        await deliver(auth)
        token = mailed_token(auth)
        await auth.recovery.verify(token)
        assert auth.users.stored[user.id].is_verified
        (told,) = auth.payloads(UserUpdated)
        assert isinstance(told, UserUpdated)
        assert told.is_verified
        assert auth.users.announced == [user.id]
        with pytest.raises(InvalidLinkError):
            await auth.recovery.verify(token)

    async def test_a_mail_that_is_sent_again_has_the_same_link(self, auth: AuthOnFakes) -> None:
        await a_user(auth)
        await deliver(auth)
        await deliver(auth)
        first, second = auth.sent.mails
        assert first.link == second.link

    async def test_a_used_link_stays_used_when_its_mail_is_sent_again(self, auth: AuthOnFakes) -> None:
        await a_user(auth)
        token = await reset_token(auth)
        await auth.recovery.reset(token, ANOTHER)
        await deliver_again(auth)
        with pytest.raises(InvalidLinkError):
            await auth.recovery.reset(token, PASSWORD)

    async def test_a_link_expires(self, auth: AuthOnFakes) -> None:
        await a_user(auth)
        await deliver(auth)
        auth.clock.advance(hours=24)
        with pytest.raises(InvalidLinkError):
            await auth.recovery.verify(mailed_token(auth))

    async def test_a_link_does_one_thing_only(self, auth: AuthOnFakes) -> None:
        await a_user(auth)
        await deliver(auth)
        with pytest.raises(InvalidLinkError):
            await auth.recovery.reset(mailed_token(auth), ANOTHER)

    async def test_a_mail_that_comes_too_late_is_not_sent(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        event = auth.users.events[-1]
        await auth.mails.send(user.id, "verify_email", event.id, auth.clock.now - timedelta(hours=24))
        assert auth.sent.mails == []

    async def test_nobody_is_asked_twice(self, auth: AuthOnFakes) -> None:
        await a_user(auth)
        await deliver(auth)
        await auth.recovery.verify(mailed_token(auth))
        auth.clock.advance(hours=1)
        await auth.recovery.ask_for_mail(EMAIL, "verify_email")
        assert auth.payloads(UserMailRequested) == []


async def deliver_again(auth: AuthOnFakes) -> None:
    """The mail of the last request, although other events have happened since."""
    event = next(e for e in reversed(auth.users.events) if isinstance(e.payload(), UserMailRequested))
    await auth.mails.send(event.subject, "reset_password", event.id, event.time)


class TestAsking:
    async def test_for_an_unknown_address_nothing_happens(self, auth: AuthOnFakes) -> None:
        await auth.recovery.ask_for_mail("nobody@example.com", "reset_password")
        assert auth.users.events == []

    async def test_at_most_once_a_minute(self, auth: AuthOnFakes) -> None:
        await a_user(auth)
        await auth.recovery.ask_for_mail(EMAIL, "reset_password")
        await auth.recovery.ask_for_mail(EMAIL, "reset_password")
        assert len(auth.payloads(UserMailRequested)) == 1
        auth.clock.advance(minutes=1)
        await auth.recovery.ask_for_mail(EMAIL, "reset_password")
        assert len(auth.payloads(UserMailRequested)) == 2

    async def test_a_deactivated_account_gets_none(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        await auth.accounts.administer(user.id, AccountChange(is_active=False), by=None)
        await auth.recovery.ask_for_mail(EMAIL, "reset_password")
        assert auth.payloads(UserMailRequested) == []

    async def test_without_a_mailer_it_is_refused_for_everybody(self) -> None:
        auth = AuthOnFakes(sends_mails=False)
        for email in (EMAIL, "nobody@example.com"):
            with pytest.raises(MailNotConfiguredError):
                await auth.recovery.ask_for_mail(email, "reset_password")

    async def test_a_mail_server_that_is_away_is_tried_again(self, auth: AuthOnFakes) -> None:
        await a_user(auth)
        auth.sent.failing = MailUnavailableError("nobody there")
        with pytest.raises(TemporaryError):
            await deliver(auth)

    async def test_an_address_that_is_refused_is_not(self, auth: AuthOnFakes) -> None:
        await a_user(auth)
        auth.sent.failing = MailRefusedError("no such user")
        await deliver(auth)


class TestReset:
    async def test_ends_all_sessions_and_lets_the_owner_in(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        tokens = await auth.sign_in.with_password("ada", PASSWORD, PHONE)
        session_id = tokens.access.text.split("/")[1]
        await auth.recovery.reset(await reset_token(auth), ANOTHER)
        assert auth.dead.ids == {session_id}
        assert auth.payloads(UserPasswordChanged) == [UserPasswordChanged(user_id=user.id, how="reset")]
        (ended,) = auth.payloads(UserSessionsRevoked)
        assert isinstance(ended, UserSessionsRevoked)
        assert (ended.session_ids, ended.reason) == ([session_id], "password_reset")
        with pytest.raises(InvalidRefreshTokenError):
            await auth.sessions.refresh(str(tokens.refresh), None)
        with pytest.raises(IncorrectCredentialsError):
            await auth.sign_in.with_password("ada", PASSWORD, PHONE)
        await auth.sign_in.with_password("ada", ANOTHER, PHONE)

    async def test_proves_the_address_and_lifts_the_lock(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        token = await reset_token(auth)
        for _ in range(5):
            with pytest.raises(IncorrectCredentialsError):
                await auth.sign_in.with_password("ada", "wrong", PHONE)
        with pytest.raises(AccountLockedError):
            await auth.sign_in.with_password("ada", PASSWORD, PHONE)
        await auth.recovery.reset(token, ANOTHER)
        assert auth.users.stored[user.id].is_verified
        await auth.sign_in.with_password("ada", ANOTHER, PHONE)

    @pytest.mark.parametrize(("was_verified", "keys_left"), [(False, 0), (True, 1)])
    async def test_keys_from_before_the_address_was_proved_go(
        self, auth: AuthOnFakes, was_verified: bool, keys_left: int
    ) -> None:
        user = await a_user(auth)
        await auth.accounts.administer(user.id, AccountChange(is_verified=was_verified), by=None)
        await auth.api_keys.create(user.id, WantedKey("whose?", frozenset({Scope.READ}), None))
        await auth.recovery.reset(await reset_token(auth), ANOTHER)
        assert len(await auth.api_keys.of(user.id)) == keys_left
        assert len(auth.payloads(UserApiKeyRevoked)) == 1 - keys_left

    async def test_a_link_from_before_the_last_change_is_void(self, auth: AuthOnFakes) -> None:
        await a_user(auth)
        first = await reset_token(auth)
        auth.clock.advance(minutes=2)
        second = await reset_token(auth)
        assert first != second
        auth.clock.advance(minutes=1)
        await auth.recovery.reset(second, ANOTHER)
        with pytest.raises(InvalidLinkError):
            await auth.recovery.reset(first, PASSWORD)

    async def test_a_made_up_link_is_refused(self, auth: AuthOnFakes) -> None:
        await a_user(auth)
        await reset_token(auth)
        with pytest.raises(InvalidLinkError):
            await auth.recovery.reset("A" * 43, ANOTHER)

    async def test_a_bad_password_does_not_use_the_link_up(self, auth: AuthOnFakes) -> None:
        await a_user(auth)
        token = await reset_token(auth)
        with pytest.raises(ValueError, match="uppercase"):
            await auth.recovery.reset(token, "all-lower-1")
        await auth.recovery.reset(token, ANOTHER)


class TestChange:
    async def test_keeps_this_session_and_ends_the_others(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        mine = await auth.sign_in.with_password("ada", PASSWORD, PHONE)
        other = await auth.sign_in.with_password("ada", PASSWORD, PHONE)
        mine_id, other_id = (tokens.access.text.split("/")[1] for tokens in (mine, other))
        await auth.recovery.change(user.id, mine_id, PASSWORD, ANOTHER)
        assert auth.dead.ids == {other_id}
        await auth.sessions.refresh(str(mine.refresh), None)
        with pytest.raises(InvalidRefreshTokenError):
            await auth.sessions.refresh(str(other.refresh), None)
        await auth.sign_in.with_password("ada", ANOTHER, PHONE)

    async def test_guesses_are_counted_like_those_at_sign_in(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        for _ in range(5):
            with pytest.raises(IncorrectPasswordError):
                await auth.recovery.change(user.id, "s", "wrong", ANOTHER)
        with pytest.raises(AccountLockedError):
            await auth.recovery.change(user.id, "s", PASSWORD, ANOTHER)
        with pytest.raises(AccountLockedError):
            await auth.sign_in.with_password("ada", PASSWORD, PHONE)
