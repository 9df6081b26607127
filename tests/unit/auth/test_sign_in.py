"""Signing in, on fakes."""

from __future__ import annotations

import asyncio

import pytest

from libs.common.contracts.identity import Plan
from libs.common.contracts.users import UserLocked, UserLoggedIn, UserRegistered
from libs.common.errors import DevPocketError
from services.auth.domain.users import User
from services.auth.errors import (
    AccountInactiveError,
    AccountLockedError,
    GoogleNotConfiguredError,
    IncorrectCredentialsError,
    InvalidGoogleTokenError,
)
from services.auth.ports import GoogleIdentity
from services.auth.service.accounts import AccountChange, NewAccount
from tests.fakes.auth import PHONE, AuthOnFakes, KnownGoogle, PlainHasher

PASSWORD = "Correct-Horse-1"


@pytest.fixture
def auth() -> AuthOnFakes:
    return AuthOnFakes()


class SlowWhenRight(PlainHasher):
    """Keeps a right password waiting until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.checking = asyncio.Event()
        self.go_on = asyncio.Event()

    async def verify(self, password: str, hashed: str | None) -> bool:
        if hashed == f"plain:{password}":
            self.checking.set()
            await self.go_on.wait()
        return await super().verify(password, hashed)


async def a_user(auth: AuthOnFakes, name: str = "Ada") -> User:
    return await auth.accounts.register(NewAccount(name, f"{name}@Example.com", PASSWORD))


async def outcome(auth: AuthOnFakes, password: str) -> str:
    try:
        await auth.sign_in.with_password("ada", password, PHONE)
    except DevPocketError as error:
        return error.code
    return "in"


class TestWithPassword:
    @pytest.mark.parametrize("name", ["ada", "ADA", "ada@example.com", " Ada@EXAMPLE.com "])
    async def test_by_name_or_address_in_any_case(self, auth: AuthOnFakes, name: str) -> None:
        user = await a_user(auth)
        tokens = await auth.sign_in.with_password(name, PASSWORD, PHONE)
        session_id = tokens.access.text.split("/")[1]
        said = UserLoggedIn(user_id=user.id, session_id=session_id, method="password", device=PHONE.name)
        assert auth.payloads(UserLoggedIn) == [said]
        assert auth.users.stored[user.id].last_login == auth.clock.now

    async def test_unknown_and_wrong_look_alike_and_both_cost_a_hash(self, auth: AuthOnFakes) -> None:
        await a_user(auth)
        messages = set()
        for name in ("ada", "nobody", "nobody@example.com"):
            with pytest.raises(IncorrectCredentialsError) as caught:
                await auth.sign_in.with_password(name, "Wrong-Horse-1", PHONE)
            messages.add(caught.value.message)
        assert messages == {"Incorrect username/email or password"}
        assert auth.hasher.checks == 3

    async def test_five_failures_lock_for_half_an_hour(self, auth: AuthOnFakes) -> None:
        await a_user(auth)
        assert [await outcome(auth, "no") for _ in range(6)] == ["incorrect_credentials"] * 5 + ["account_locked"]
        assert await outcome(auth, PASSWORD) == "account_locked"
        assert len(auth.payloads(UserLocked)) == 1
        auth.clock.advance(minutes=30)
        assert await outcome(auth, PASSWORD) == "in"

    async def test_a_success_forgets_failures(self, auth: AuthOnFakes) -> None:
        await a_user(auth)
        for _ in range(3):
            assert [await outcome(auth, "no") for _ in range(4)] == ["incorrect_credentials"] * 4
            assert await outcome(auth, PASSWORD) == "in"

    async def test_parallel_guesses_get_no_more_tries(self, auth: AuthOnFakes) -> None:
        await a_user(auth)
        answers = await asyncio.gather(*(outcome(auth, f"guess {n}") for n in range(30)))
        assert answers.count("incorrect_credentials") == 5
        assert answers.count("account_locked") == 25
        assert len(auth.payloads(UserLocked)) == 1

    async def test_a_right_guess_that_was_checked_before_the_lock_but_counted_after_it_stays_out(self) -> None:
        hasher = SlowWhenRight()
        auth = AuthOnFakes(hasher=hasher)
        await a_user(auth)
        right = asyncio.create_task(outcome(auth, PASSWORD))
        await hasher.checking.wait()
        assert [await outcome(auth, "no") for _ in range(5)] == ["incorrect_credentials"] * 5
        hasher.go_on.set()
        assert await right == "account_locked"
        assert auth.stored_sessions.stored == {}

    async def test_many_devices_may_sign_in_at_once(self, auth: AuthOnFakes) -> None:
        await a_user(auth)
        assert set(await asyncio.gather(*(outcome(auth, PASSWORD) for _ in range(20)))) == {"in"}

    async def test_deactivated_is_told_only_to_who_knows_the_password(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        await auth.accounts.administer(user.id, AccountChange(is_active=False), by="admin")
        with pytest.raises(AccountInactiveError):
            await auth.sign_in.with_password("ada", PASSWORD, PHONE)
        with pytest.raises(IncorrectCredentialsError):
            await auth.sign_in.with_password("ada", "Wrong-Horse-1", PHONE)

    async def test_deactivation_while_signing_in_wins(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        stale = auth.users.stored[user.id]
        await auth.accounts.administer(user.id, AccountChange(is_active=False), by="admin")
        await auth.accounts.administer(user.id, AccountChange(is_active=True), by="admin")
        with pytest.raises(IncorrectCredentialsError):
            await auth.sessions.begin(stale, "password", PHONE)
        assert auth.stored_sessions.stored == {}


def identity(email: str = "grace@example.com", *, verified: bool = True, subject: str = "g-1") -> GoogleIdentity:
    return GoogleIdentity(subject, email, verified, "Grace", "https://example.com/g.png")


class TestWithGoogle:
    async def test_not_configured(self, auth: AuthOnFakes) -> None:
        with pytest.raises(GoogleNotConfiguredError):
            await auth.sign_in.with_google("token", PHONE)

    async def test_a_new_person_gets_a_verified_free_account_once(self) -> None:
        auth = AuthOnFakes(google=KnownGoogle(good=identity()))
        await auth.sign_in.with_google("good", PHONE)
        await auth.sign_in.with_google("good", PHONE)
        (user,) = auth.users.stored.values()
        assert (user.username, user.is_verified, user.plan, user.password_hash) == ("grace", True, Plan.FREE, None)
        assert len(auth.payloads(UserRegistered)) == 1
        with pytest.raises(IncorrectCredentialsError):
            await auth.sign_in.with_password("grace", "", PHONE)

    async def test_a_taken_name_gets_a_suffix(self) -> None:
        auth = AuthOnFakes(google=KnownGoogle(good=identity()))
        await auth.accounts.register(NewAccount("Grace", "other@example.com", PASSWORD))
        await auth.sign_in.with_google("good", PHONE)
        assert any(user.username.startswith("grace-") for user in auth.users.stored.values())

    async def test_bad_token(self) -> None:
        with pytest.raises(InvalidGoogleTokenError):
            await AuthOnFakes(google=KnownGoogle()).sign_in.with_google("forged", PHONE)

    async def test_an_address_google_has_not_verified_is_worth_nothing(self) -> None:
        auth = AuthOnFakes(google=KnownGoogle(good=identity(verified=False)))
        with pytest.raises(InvalidGoogleTokenError):
            await auth.sign_in.with_google("good", PHONE)
        assert auth.users.stored == {}

    async def test_links_to_a_verified_account_only(self) -> None:
        auth = AuthOnFakes(google=KnownGoogle(good=identity(), boss=identity("boss@example.com", subject="g-2")))
        await auth.accounts.register(NewAccount("squatter", "Grace@example.com", PASSWORD))
        with pytest.raises(InvalidGoogleTokenError, match="sign in with its password"):
            await auth.sign_in.with_google("good", PHONE)
        boss = await auth.accounts.create_admin(NewAccount("boss", "boss@example.com", PASSWORD))
        tokens = await auth.sign_in.with_google("boss", PHONE)
        assert tokens.access.text.startswith(boss.id)
        assert auth.users.stored[boss.id].google_subject == "g-2"

    async def test_locked_means_locked(self) -> None:
        auth = AuthOnFakes(google=KnownGoogle(good=identity()))
        await auth.sign_in.with_google("good", PHONE)
        (user,) = auth.users.stored.values()
        for _ in range(5):
            with pytest.raises(IncorrectCredentialsError):
                await auth.sign_in.with_password(user.username, "guess", PHONE)
        with pytest.raises(AccountLockedError):
            await auth.sign_in.with_google("good", PHONE)
