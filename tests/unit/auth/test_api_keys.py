"""API keys: what their owner may make of them, and how services check them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.clock import utc_now
from libs.common.contracts.identity import Plan, Scope
from libs.common.contracts.users import UserApiKeyCreated, UserApiKeyRevoked, UserSessionsRevoked
from libs.common.errors import UnauthenticatedError
from libs.common.ids import new_id
from libs.common.security import api_keys
from libs.common.security.api_keys import ApiKey, ApiKeyVerifier, KnownKey, key_session_id
from libs.common.security.principal import NEVER
from services.auth.domain.api_keys import MAX_KEYS, StoredKey, WantedKey
from services.auth.domain.users import User
from services.auth.errors import ApiKeyNotFoundError, ScopeNotAllowedError, TooManyApiKeysError
from services.auth.service.accounts import AccountChange, NewAccount
from tests.fakes.auth import AuthOnFakes

READ = frozenset({Scope.READ})


@pytest.fixture
def auth() -> AuthOnFakes:
    return AuthOnFakes()


async def a_user(auth: AuthOnFakes) -> User:
    return await auth.accounts.register(NewAccount("ada", "ada@example.com", "Correct-Horse-1"))


class TestForm:
    @given(st.text(max_size=100))
    def test_any_text_is_a_key_or_none(self, text: str) -> None:
        key = ApiKey.parse(text)
        assert key is None or str(key) == text

    def test_a_key_reads_what_it_writes_and_hides_its_secret(self) -> None:
        key = ApiKey.new()
        assert ApiKey.parse(str(key)) == key
        assert key.secret not in repr(key)
        assert key.secret not in key.secret_hash
        assert 0 <= key.age_s < 60


class TestMaking:
    async def test_what_others_learn_is_enough_to_check_it(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        stored, key = await auth.api_keys.create(user.id, WantedKey("laptop", READ, timedelta(days=30)))
        (told,) = auth.payloads(UserApiKeyCreated)
        assert told == UserApiKeyCreated(
            **user.state,
            key_id=stored.id,
            name="laptop",
            scopes=[Scope.READ],
            secret_hash=key.secret_hash,
            expires_at=auth.clock.now + timedelta(days=30),
        )
        assert key.secret not in told.model_dump_json()
        assert auth.keys.announced == [stored.id]

    async def test_the_scope_admin_is_for_administrators(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        wanted = WantedKey("ops", frozenset({Scope.ADMIN}), None)
        with pytest.raises(ScopeNotAllowedError):
            await auth.api_keys.create(user.id, wanted)
        await auth.accounts.administer(user.id, AccountChange(plan=Plan.ADMIN), by=None)
        stored, _ = await auth.api_keys.create(user.id, wanted)
        assert stored.scopes == (Scope.ADMIN,)

    async def test_there_is_a_limit(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        for number in range(MAX_KEYS):
            await auth.api_keys.create(user.id, WantedKey(f"k{number}", READ, None))
        with pytest.raises(TooManyApiKeysError):
            await auth.api_keys.create(user.id, WantedKey("one more", READ, None))


class TestRevoking:
    async def test_is_told_and_names_the_present_epoch(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        stored, _ = await auth.api_keys.create(user.id, WantedKey("laptop", READ, None))
        await auth.sessions.end_all(user.id)
        await auth.api_keys.revoke(user.id, stored.id)
        assert auth.payloads(UserApiKeyRevoked) == [UserApiKeyRevoked(user_id=user.id, key_id=stored.id, name="laptop")]
        assert key_session_id(stored.id, 1) in auth.dead.ids
        reasons = [data.reason for data in auth.payloads(UserSessionsRevoked) if isinstance(data, UserSessionsRevoked)]
        assert reasons == ["signed_out", "key_revoked"]
        assert await auth.api_keys.of(user.id) == []

    async def test_only_the_owner_can(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        stored, _ = await auth.api_keys.create(user.id, WantedKey("laptop", READ, None))
        other = await auth.accounts.register(NewAccount("bob", "bob@example.com", "Correct-Horse-1"))
        with pytest.raises(ApiKeyNotFoundError):
            await auth.api_keys.revoke(other.id, stored.id)
        assert await auth.api_keys.of(user.id) == [stored]

    async def test_deactivation_ends_what_is_open_by_keys_and_keeps_them(self, auth: AuthOnFakes) -> None:
        user = await a_user(auth)
        stored, _ = await auth.api_keys.create(user.id, WantedKey("laptop", READ, None))
        await auth.accounts.administer(user.id, AccountChange(is_active=False), by=None)
        assert auth.dead.ids == {key_session_id(stored.id, 0)}
        assert await auth.api_keys.of(user.id) == [stored]


class OneKey:
    """A directory with one key; counts how often it is asked."""

    def __init__(self, known: KnownKey | None) -> None:
        self.known = known
        self.asked = 0

    async def find(self, key_id: str) -> KnownKey | None:
        self.asked += 1
        return self.known if self.known is not None and self.known.id == key_id else None


def known(key: ApiKey) -> KnownKey:
    return KnownKey(
        id=key.id,
        secret_hash=key.secret_hash,
        scopes=frozenset({Scope.ENVIRONMENTS}),
        expires_at=None,
        user_id="u",
        plan=Plan.PRO,
        is_active=True,
        is_verified=True,
        session_epoch=3,
    )


class TestChecking:
    async def test_a_good_one_tells_who_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(api_keys, "_FRESH_FOR_S", 60.0)
        key = ApiKey.new()
        directory = OneKey(known(key))
        verifier = ApiKeyVerifier(directory)
        caller = await verifier.verify(str(key))
        assert (caller.user_id, caller.plan, caller.expires_at) == ("u", Plan.PRO, NEVER)
        assert (caller.key_id, caller.session_id) == (key.id, f"{key.id}-3")
        assert caller.may(Scope.READ)
        assert caller.may(Scope.ENVIRONMENTS)
        assert not caller.may(Scope.TERMINAL)
        assert not caller.is_signed_in
        assert await verifier.verify(str(key)) == caller
        assert directory.asked == 1

    @pytest.mark.parametrize("scopes", [Scope.READ, Scope.ENVIRONMENTS, Scope.TERMINAL])
    async def test_an_administrators_key_is_no_administrator_unless_made_for_it(self, scopes: Scope) -> None:
        key = ApiKey.new()
        directory = OneKey(replace(known(key), plan=Plan.ADMIN, scopes=frozenset({scopes})))
        assert not (await ApiKeyVerifier(directory).verify(str(key))).is_admin
        directory.known = replace(known(key), plan=Plan.ADMIN, scopes=frozenset({Scope.ADMIN}))
        assert (await ApiKeyVerifier(directory).verify(str(key))).is_admin
        directory.known = replace(known(key), plan=Plan.PRO, scopes=frozenset({Scope.ADMIN}))
        assert not (await ApiKeyVerifier(directory).verify(str(key))).is_admin

    @pytest.mark.parametrize(
        "change",
        [
            {"secret_hash": ApiKey.new().secret_hash},
            {"is_active": False},
            {"expires_at": utc_now()},
        ],
    )
    async def test_a_bad_one_is_refused(self, change: dict[str, object]) -> None:
        key = ApiKey.new()
        with pytest.raises(UnauthenticatedError):
            await ApiKeyVerifier(OneKey(replace(known(key), **change))).verify(str(key))  # type: ignore[arg-type]

    async def test_an_old_unknown_one_is_refused_without_a_wait(self) -> None:
        directory = OneKey(None)
        old = ApiKey("018f" + "0" * 28, ApiKey.new().secret)
        with pytest.raises(UnauthenticatedError):
            await ApiKeyVerifier(directory).verify(str(old))
        assert directory.asked == 1

    async def test_a_brand_new_one_is_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("_NEWS_WITHIN_S", "_GRACE_S"):
            monkeypatch.setattr(api_keys, name, 60.0)
        key = ApiKey.new()

        class Late(OneKey):
            async def find(self, key_id: str) -> KnownKey | None:
                found = await super().find(key_id)
                return found if self.asked > 2 else None

        assert (await ApiKeyVerifier(Late(known(key))).verify(str(key))).key_id == key.id

    async def test_a_key_of_the_future_is_not_waited_for(self) -> None:
        directory = OneKey(None)
        later = ApiKey("f" * 12 + new_id()[12:], ApiKey.new().secret)
        with pytest.raises(UnauthenticatedError):
            await ApiKeyVerifier(directory).verify(str(later))
        assert directory.asked == 1


def test_a_stored_key_shows_nothing_by_accident() -> None:
    key = ApiKey.new()
    stored = StoredKey(
        id=key.id,
        user_id="u",
        name="n",
        scopes=(Scope.READ,),
        secret_hash=key.secret_hash,
        created_at=utc_now(),
        expires_at=None,
    )
    assert key.secret_hash not in repr(stored)
