"""Puts the use cases and their adapters together, for the service and for its commands."""

from __future__ import annotations

from datetime import timedelta

from libs.common.clock import Clock, utc_now
from libs.common.messaging.outbox import OutboxRelay
from libs.common.mongo import Database
from libs.common.security.revocation import Revocations
from libs.common.security.sealing import Sealer
from services.auth.domain import LockoutPolicy
from services.auth.keyring import SEALING_PURPOSE, KeyRing
from services.auth.passwords import BcryptHasher
from services.auth.ports import GoogleIdentities
from services.auth.repository import MongoSessions, MongoUsers
from services.auth.service.accounts import AccountService
from services.auth.service.sessions import SessionService
from services.auth.service.sign_in import SignInService
from services.auth.settings import AuthSettings
from services.auth.tokens import JwtAccessTokens


def make_key_ring(settings: AuthSettings, clock: Clock = utc_now) -> KeyRing:
    """The key ring, to be attached to a database."""
    return KeyRing(
        Sealer(settings.secret_key.get_secret_value(), SEALING_PURPOSE),
        clock,
        token_life=timedelta(minutes=settings.access_token_expire_minutes),
        key_life=timedelta(days=settings.signing_key_days),
    )


def configured_google(settings: AuthSettings) -> GoogleIdentities | None:
    """google-auth, or None when the operator has not set it up."""
    if not settings.google_client_ids:
        return None
    # Imported late: with its HTTP stack it takes 15 MB that most installations never use.
    from services.auth.google import GoogleAuthIdentities  # noqa: PLC0415

    return GoogleAuthIdentities(settings.google_client_ids)


class AuthServices:
    """All use cases on one database."""

    def __init__(
        self,
        settings: AuthSettings,
        database: Database,
        relay: OutboxRelay,
        revocations: Revocations,
        ring: KeyRing,
        *,
        google: GoogleIdentities | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._hasher = BcryptHasher(cost=settings.password_hash_cost, workers=settings.password_hash_workers)
        self._users = MongoUsers(database, relay)
        self._sessions = MongoSessions(database, relay)
        self.ring = ring
        ring.attach(database)
        self.sessions = SessionService(
            self._users,
            self._sessions,
            JwtAccessTokens(ring, settings),
            revocations,
            clock,
            life=timedelta(days=settings.refresh_token_expire_days),
        )
        lockout = LockoutPolicy(settings.lockout_failures, timedelta(minutes=settings.lockout_minutes))
        self.sign_in = SignInService(self._users, self.sessions, self._hasher, google, clock, lockout=lockout)
        self.accounts = AccountService(self._users, self.sessions, self._hasher, clock)

    async def prepare(self) -> None:
        """Make the indexes."""
        await self._users.prepare()
        await self._sessions.prepare()

    def close(self) -> None:
        """Stop the hashing threads."""
        self._hasher.close()
