"""The rules about passwords, names, locks and refresh tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from libs.common.contracts.identity import Plan
from libs.common.contracts.users import UserLocked, UserLoginFailed
from services.auth.domain.rules import check_password, check_username, username_from
from services.auth.domain.sessions import RefreshToken
from services.auth.domain.users import LockoutPolicy, User
from services.auth.errors import AccountLockedError, InvalidRefreshTokenError

NOW = datetime(2026, 11, 1, tzinfo=UTC)
POLICY = LockoutPolicy(5, timedelta(minutes=30))


def a_user() -> User:
    return User(
        id="u",
        username="ada",
        email="ada@example.com",
        full_name=None,
        plan=Plan.FREE,
        is_verified=False,
        created_at=NOW,
    )


class TestPassword:
    @pytest.mark.parametrize(
        ("password", "message"),
        [
            ("Aa1", "Password must be at least 8 characters long"),
            ("Aa1" + "x" * 98, "Password must be at most 100 characters long"),
            ("PASSWORD1", "Password must contain at least one lowercase letter"),
            ("password1", "Password must contain at least one uppercase letter"),
            ("Passwords", "Password must contain at least one digit"),
        ],
    )
    def test_says_the_rule_that_is_broken(self, password: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            check_password(password)

    @given(st.text(max_size=120))
    @example("ªªªªªªA1")  # a small letter without a capital one
    def test_accepts_exactly_what_keeps_all_rules(self, password: str) -> None:
        kept = (
            8 <= len(password) <= 100
            and any(char.isupper() for char in password)
            and any(char.islower() for char in password)
            and any(char.isdigit() for char in password)
        )
        try:
            accepted = check_password(password) == password
        except ValueError:
            accepted = False
        assert accepted == kept


class TestUsername:
    @pytest.mark.parametrize("name", ["ada", "a_b-C9", "x" * 30])
    def test_accepts(self, name: str) -> None:
        assert check_username(name) == name

    @pytest.mark.parametrize("name", ["ab", "x" * 31, "a b c", "ada@x", "ada\n", "адам", ""])
    def test_refuses(self, name: str) -> None:
        with pytest.raises(ValueError, match="3-30 characters"):
            check_username(name)

    @given(st.emails())
    def test_one_can_be_made_from_every_address(self, email: str) -> None:
        name = username_from(email)
        assert check_username(name) == name
        assert check_username(f"{name}-abcdef")


class TestLockout:
    def test_the_last_allowed_failure_locks(self) -> None:
        user = a_user()
        for number in range(1, 5):
            user, events = user.after_failed_login(NOW, POLICY)
            assert events == [UserLoginFailed(user_id="u", failures=number)]
        user, events = user.after_failed_login(NOW, POLICY)
        locked = UserLocked(user_id="u", locked_until=NOW + timedelta(minutes=30))
        assert events == [UserLoginFailed(user_id="u", failures=5), locked]
        with pytest.raises(AccountLockedError, match=r"^Account is temporarily locked .* in 30 minutes\.$") as caught:
            user.logged_in(NOW)
        assert caught.value.headers["Retry-After"] == "1800"

    def test_a_lock_ends_and_counting_starts_anew(self) -> None:
        user = a_user()
        for _ in range(5):
            user, _ = user.after_failed_login(NOW, POLICY)
        later = NOW + timedelta(minutes=30)
        user, events = user.after_failed_login(later, POLICY)
        assert (user.failed_logins, user.locked_until) == (1, None)
        assert events == [UserLoginFailed(user_id="u", failures=1)]

    def test_success_forgets_failures(self) -> None:
        user, _ = a_user().after_failed_login(NOW, POLICY)
        assert user.logged_in(NOW).failed_logins == 0


class TestRefreshToken:
    def test_reads_what_it_writes(self) -> None:
        token = RefreshToken.new()
        assert RefreshToken.parse(str(token)) == token
        assert str(token) not in repr(token)

    def test_a_successor_keeps_the_family_and_changes_the_secret(self) -> None:
        token = RefreshToken.new()
        assert token.successor().family_hash == token.family_hash
        assert token.successor().secret_hash != token.secret_hash

    @given(st.text(max_size=200))
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidRefreshTokenError):
            RefreshToken.parse(text)

    @given(st.binary(max_size=200).filter(lambda raw: len(raw) != 64))
    def test_other_lengths_are_refused(self, raw: bytes) -> None:
        import base64

        with pytest.raises(InvalidRefreshTokenError):
            RefreshToken.parse(base64.urlsafe_b64encode(raw).decode())
