"""Accounts and their administration, on fakes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from libs.common.contracts.identity import Plan
from libs.common.contracts.users import UserPlanChanged, UserRegistered, UserSessionsRevoked, UserUpdated
from libs.common.errors import UnauthenticatedError
from services.auth.errors import (
    EmailTakenError,
    InvalidRefreshTokenError,
    OwnAccountError,
    UsernameTakenError,
    UserNotFoundError,
)
from services.auth.first_admin import ensure_first_admin
from services.auth.service.accounts import AccountChange, NewAccount
from services.auth.settings import AuthSettings
from tests.fakes.auth import PHONE, AuthOnFakes

PASSWORD = "Correct-Horse-1"
ADA = NewAccount("ada", "ada@example.com", PASSWORD)


@pytest.fixture
def auth() -> AuthOnFakes:
    return AuthOnFakes()


class TestRegister:
    async def test_free_unverified_and_announced_without_secrets(self, auth: AuthOnFakes) -> None:
        user = await auth.accounts.register(ADA)
        assert (user.plan, user.is_verified, user.is_active) == (Plan.FREE, False, True)
        assert auth.payloads(UserRegistered) == [UserRegistered(**user.state)]
        text = auth.users.events[0].model_dump_json()
        assert "example.com" not in text
        assert PASSWORD not in text

    @pytest.mark.parametrize(
        ("account", "error", "message"),
        [
            (NewAccount("eve", "ADA@example.com", PASSWORD), EmailTakenError, "Email already registered"),
            (NewAccount("ADA", "eve@example.com", PASSWORD), UsernameTakenError, "Username already taken"),
            (NewAccount("ada", "ada@example.com", PASSWORD), EmailTakenError, "Email already registered"),
            (NewAccount("a!", "eve@example.com", PASSWORD), ValueError, "3-30 characters"),
            (NewAccount("eve", "eve@example.com", "short"), ValueError, "at least 8"),
        ],
    )
    async def test_refuses(self, auth: AuthOnFakes, account: NewAccount, error: type[Exception], message: str) -> None:
        await auth.accounts.register(ADA)
        with pytest.raises(error, match=message):
            await auth.accounts.register(account)
        assert len(auth.users.stored) == 1

    async def test_of_parallel_ones_one_wins(self, auth: AuthOnFakes) -> None:
        answers = await asyncio.gather(*(auth.accounts.register(ADA) for _ in range(10)), return_exceptions=True)
        assert sum(isinstance(answer, EmailTakenError) for answer in answers) == 9


class TestAdminister:
    async def test_plan(self, auth: AuthOnFakes) -> None:
        user = await auth.accounts.register(ADA)
        changed = await auth.accounts.administer(user.id, AccountChange(plan=Plan.PRO), by="admin")
        assert (changed.plan, changed.version) == (Plan.PRO, 2)
        assert auth.payloads(UserPlanChanged) == [UserPlanChanged(**changed.state)]
        assert auth.users.announced == [user.id]

    async def test_deactivation_ends_every_session_in_the_same_write(self, auth: AuthOnFakes) -> None:
        user = await auth.accounts.register(ADA)
        tokens = [await auth.sign_in.with_password("ada", PASSWORD, PHONE) for _ in range(3)]
        ids = sorted(auth.stored_sessions.stored)
        await auth.accounts.administer(user.id, AccountChange(is_active=False), by="admin")
        (revoked,) = auth.payloads(UserSessionsRevoked)
        assert isinstance(revoked, UserSessionsRevoked)
        assert (sorted(revoked.session_ids), revoked.reason) == (ids, "deactivated")
        assert auth.users.events[-1].type.endswith("sessions_revoked.v1")
        assert auth.dead.ids == set(ids)
        assert auth.users.announced == [user.id]
        with pytest.raises(UnauthenticatedError):
            await auth.accounts.of_caller(user.id)
        await auth.accounts.administer(user.id, AccountChange(is_active=True), by="admin")
        for each in tokens:
            with pytest.raises(InvalidRefreshTokenError):
                await auth.sessions.refresh(str(each.refresh), None)
        assert len(auth.payloads(UserUpdated)) == 2

    async def test_no_session_slips_through_a_deactivation(self, auth: AuthOnFakes) -> None:
        user = await auth.accounts.register(ADA)
        await asyncio.gather(
            *(auth.sign_in.with_password("ada", PASSWORD, PHONE) for _ in range(10)),
            auth.accounts.administer(user.id, AccountChange(is_active=False), by="admin"),
            return_exceptions=True,
        )
        assert set(auth.stored_sessions.stored) == auth.dead.ids

    async def test_a_demoted_administrator_is_signed_out(self, auth: AuthOnFakes) -> None:
        boss = await auth.accounts.create_admin(NewAccount("boss", "boss@example.com", PASSWORD))
        await auth.sign_in.with_password("boss", PASSWORD, PHONE)
        await auth.accounts.administer(boss.id, AccountChange(plan=Plan.FREE), by="other")
        (revoked,) = auth.payloads(UserSessionsRevoked)
        assert isinstance(revoked, UserSessionsRevoked)
        assert revoked.reason == "demoted"

    @pytest.mark.parametrize("change", [AccountChange(is_active=False), AccountChange(plan=Plan.FREE)])
    async def test_not_oneself(self, auth: AuthOnFakes, change: AccountChange) -> None:
        boss = await auth.accounts.create_admin(NewAccount("boss", "boss@example.com", PASSWORD))
        with pytest.raises(OwnAccountError):
            await auth.accounts.administer(boss.id, change, by=boss.id)
        assert auth.users.stored[boss.id] == boss

    async def test_unlock(self, auth: AuthOnFakes) -> None:
        user = await auth.accounts.register(ADA)
        for _ in range(5):
            with pytest.raises(UnauthenticatedError):
                await auth.sign_in.with_password("ada", "guess", PHONE)
        await auth.accounts.administer(user.id, AccountChange(unlock=True), by="admin")
        await auth.sign_in.with_password("ada", PASSWORD, PHONE)

    async def test_an_address_can_be_taken_as_verified(self, auth: AuthOnFakes) -> None:
        user = await auth.accounts.register(ADA)
        changed = await auth.accounts.administer(user.id, AccountChange(is_verified=True), by="admin")
        assert changed.is_verified
        assert auth.payloads(UserUpdated) == [UserUpdated(**changed.state)]

    async def test_no_change_is_no_write_and_no_event(self, auth: AuthOnFakes) -> None:
        user = await auth.accounts.register(ADA)
        change = AccountChange(plan=Plan.FREE, is_active=True, unlock=True)
        assert await auth.accounts.administer(user.id, change, by="admin") == user
        assert len(auth.users.events) == 1

    async def test_nobody(self, auth: AuthOnFakes) -> None:
        with pytest.raises(UserNotFoundError):
            await auth.accounts.administer("nobody", AccountChange(plan=Plan.PRO), by="admin")


class TestPage:
    async def test_every_account_is_seen_once(self, auth: AuthOnFakes) -> None:
        for number in range(5):
            await auth.accounts.register(NewAccount(f"user-{number}", f"u{number}@example.com", PASSWORD))
        seen, cursor = [], None
        while True:
            users, cursor = await auth.accounts.page("user", cursor, 2)
            seen += [user.username for user in users]
            if cursor is None:
                break
        assert seen == [f"user-{number}" for number in range(5)]


def admin_settings(**values: Any) -> AuthSettings:
    return AuthSettings(_env_file=None, **values)


class TestFirstAdmin:
    async def test_is_made_once(self, auth: AuthOnFakes) -> None:
        wanted = admin_settings(admin_email="Boss@company.local", admin_password=PASSWORD)
        await asyncio.gather(*(ensure_first_admin(auth.accounts, wanted) for _ in range(3)))
        (boss,) = auth.users.stored.values()
        assert (boss.username, boss.plan, boss.is_verified) == ("Boss", Plan.ADMIN, True)

    async def test_a_taken_name_gets_a_suffix(self, auth: AuthOnFakes) -> None:
        await auth.accounts.register(NewAccount("boss", "else@example.com", PASSWORD))
        await ensure_first_admin(
            auth.accounts, admin_settings(admin_email="boss@company.local", admin_password=PASSWORD)
        )
        assert len(auth.users.stored) == 2

    @pytest.mark.parametrize(
        "values",
        [
            {"admin_email": "boss@company.local"},
            {"admin_password": PASSWORD},
            {"admin_email": "no address", "admin_password": PASSWORD},
            {"admin_email": "boss@company.local", "admin_password": "weak"},
        ],
    )
    async def test_unusable_values_make_nobody_and_stop_nothing(
        self, auth: AuthOnFakes, values: dict[str, str]
    ) -> None:
        with capture_logs() as logs:
            await ensure_first_admin(auth.accounts, admin_settings(**values))
        assert auth.users.stored == {}
        assert [line["log_level"] for line in logs] == ["error"]

    @pytest.mark.parametrize("values", [{}, {"admin_email": "", "admin_password": ""}])
    async def test_nobody_is_asked_for_by_empty_values(self, auth: AuthOnFakes, values: dict[str, str]) -> None:
        with capture_logs() as logs:
            await ensure_first_admin(auth.accounts, admin_settings(**values))
        assert auth.users.stored == {}
        assert logs == []
