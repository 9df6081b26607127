"""Account deletion: the account at once, the rest by events."""

from __future__ import annotations

import pytest

from libs.common.contracts.users import UserDeleted, UserErased, UserSessionsRevoked
from libs.common.security.api_keys import key_session_id
from services.auth.domain.api_keys import WantedKey
from services.auth.domain.users import User
from services.auth.errors import (
    IncorrectCredentialsError,
    IncorrectPasswordError,
    InvalidRefreshTokenError,
    OwnAccountError,
    SignInAgainError,
    UserNotFoundError,
)
from services.auth.ports import GoogleIdentity
from services.auth.service.accounts import AccountChange, NewAccount
from tests.fakes.auth import PHONE, AuthOnFakes, KnownGoogle
from tests.unit.auth.test_api_keys import READ

PASSWORD = "Correct-Horse-1"
GOOGLE = GoogleIdentity("g-1", "eve@example.com", email_verified=True, name="Eve", picture=None)


@pytest.fixture
def auth() -> AuthOnFakes:
    return AuthOnFakes(google=KnownGoogle(good=GOOGLE))


async def a_user(auth: AuthOnFakes) -> User:
    return await auth.accounts.register(NewAccount("ada", "ada@example.com", PASSWORD, "Ada L."))


class TestOwn:
    async def test_nothing_personal_is_left(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        tokens = await auth.sign_in.with_password("ada", PASSWORD, PHONE)
        session_id = tokens.access.text.split("/")[1]
        key, _ = await auth.api_keys.create(user.id, WantedKey("laptop", READ, None))
        await auth.deletion.delete_own(user.id, session_id, PASSWORD)
        tombstone = auth.users.stored[user.id]
        shown = " ".join(str(getattr(tombstone, name)) for name in User.__dataclass_fields__)
        for personal in ("ada", "Ada", "example.com", "plain:"):
            assert personal not in shown.replace(user.id, "")
        assert tombstone.password_hash is None
        assert not tombstone.is_active
        assert auth.dead.ids == {session_id, key_session_id(key.id, 0)}
        (told,) = auth.payloads(UserDeleted)
        assert isinstance(told, UserDeleted)
        assert (told.user_id, told.is_active, told.version) == (user.id, False, tombstone.version)
        (ended,) = auth.payloads(UserSessionsRevoked)
        assert isinstance(ended, UserSessionsRevoked)
        assert ended.reason == "deleted"
        with pytest.raises(InvalidRefreshTokenError):
            await auth.sessions.refresh(str(tokens.refresh), None)
        with pytest.raises(IncorrectCredentialsError):
            await auth.sign_in.with_password("ada", PASSWORD, PHONE)

    async def test_name_and_address_are_free_again(self, auth: AuthOnFakes) -> None:
        first = await a_user(auth)
        await auth.deletion.delete(first.id, by=None)
        second = await a_user(auth)
        assert second.id != first.id
        await auth.sign_in.with_password("ada@example.com", PASSWORD, PHONE)

    @pytest.mark.parametrize("password", [None, "wrong"])
    async def test_takes_the_password(self, auth: AuthOnFakes, password: str | None) -> None:
        user = await a_user(auth)
        with pytest.raises(IncorrectPasswordError):
            await auth.deletion.delete_own(user.id, "s", password)
        assert auth.users.stored[user.id].deleted_at is None

    async def test_without_a_password_takes_a_fresh_sign_in(self, auth: AuthOnFakes) -> None:
        tokens = await auth.sign_in.with_google("good", PHONE)
        user_id, session_id, _ = tokens.access.text.split("/")
        auth.clock.advance(minutes=11)
        with pytest.raises(SignInAgainError):
            await auth.deletion.delete_own(user_id, session_id, None)
        tokens = await auth.sign_in.with_google("good", PHONE)
        await auth.deletion.delete_own(user_id, tokens.access.text.split("/")[1], None)
        again = await auth.sign_in.with_google("good", PHONE)
        assert not again.access.text.startswith(user_id)


class TestByAdministrators:
    async def test_not_twice_and_not_oneself(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        with pytest.raises(OwnAccountError):
            await auth.deletion.delete(user.id, by=user.id)
        await auth.deletion.delete(user.id, by="boss")
        with pytest.raises(UserNotFoundError):
            await auth.deletion.delete(user.id, by="boss")
        with pytest.raises(UserNotFoundError):
            await auth.accounts.administer(user.id, AccountChange(is_active=True), by="boss")


class TestEnd:
    async def test_is_told_once_when_all_is_gone(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        await auth.sign_in.with_password("ada", PASSWORD, PHONE)
        await auth.api_keys.create(user.id, WantedKey("laptop", READ, None))
        await auth.deletion.delete(user.id, by=None)
        await auth.deletion.forget(user.id)
        assert auth.stored_sessions.stored == {}
        assert auth.keys.stored == {}
        await auth.deletion.emptied(user.id, 2)
        await auth.deletion.emptied(user.id, 2)
        assert auth.payloads(UserErased) == [UserErased(user_id=user.id, environments=2)]

    async def test_says_nothing_of_an_account_that_lives(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        await auth.sign_in.with_password("ada", PASSWORD, PHONE)
        await auth.deletion.emptied("unknown", 0)
        await auth.deletion.emptied(user.id, 0)
        assert auth.payloads(UserErased) == []
        assert len(auth.stored_sessions.stored) == 1
