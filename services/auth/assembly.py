"""Puts the use cases and their adapters together, for the service and for its commands."""

from __future__ import annotations

from datetime import timedelta

from libs.common.clock import Clock, utc_now
from libs.common.messaging.outbox import OutboxRelay
from libs.common.mongo import Database
from libs.common.security.revocation import Revocations
from libs.common.security.sealing import Sealer, derived_key
from services.auth.domain.users import LockoutPolicy
from services.auth.keyring import SEALING_PURPOSE, KeyRing
from services.auth.mail.texts import mail_with_link
from services.auth.passwords import BcryptHasher
from services.auth.ports import GoogleIdentities, Mailer
from services.auth.repository import MongoApiKeys, MongoAudit, MongoLinks, MongoSessions, MongoStrangers, MongoUsers
from services.auth.service.accounts import AccountService
from services.auth.service.api_keys import ApiKeyService
from services.auth.service.audit import AuditService
from services.auth.service.credentials import Credentials
from services.auth.service.deletion import DeletionService
from services.auth.service.mails import LinkRules, MailService
from services.auth.service.recovery import RecoveryService
from services.auth.service.sessions import SessionService
from services.auth.service.sightings import SightingService
from services.auth.service.sign_in import SignInService
from services.auth.settings import AuthSettings
from services.auth.tokens import JwtAccessTokens

_LINK_PURPOSE = "mail-links"


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

    return GoogleAuthIdentities(settings.google_client_ids, certs_url=settings.google_certs_url)


class AuthServices:
    """All use cases on one database. `mails` is None where no mailer is set up."""

    def __init__(
        self,
        settings: AuthSettings,
        database: Database,
        relay: OutboxRelay,
        revocations: Revocations,
        ring: KeyRing,
        *,
        google: GoogleIdentities | None = None,
        mailer: Mailer | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._hasher = BcryptHasher(cost=settings.password_hash_cost, workers=settings.password_hash_workers)
        self._google = google
        users = MongoUsers(database, relay)
        sessions = MongoSessions(database, relay)
        links = MongoLinks(database)
        strangers = MongoStrangers(database)
        trail = MongoAudit(database, retention=timedelta(days=settings.audit_retention_days))
        self.stored_keys = MongoApiKeys(database, relay)
        self._stores = (users, sessions, self.stored_keys, links, strangers, trail)
        self.ring = ring
        ring.attach(database)
        self.sessions = SessionService(
            users,
            sessions,
            self.stored_keys,
            tokens=JwtAccessTokens(ring, settings),
            dead=revocations,
            clock=clock,
            life=timedelta(days=settings.refresh_token_expire_days),
        )
        lockout = LockoutPolicy(settings.lockout_failures, timedelta(minutes=settings.lockout_minutes))
        credentials = Credentials(users, strangers, self._hasher, clock, lockout=lockout)
        self.sign_in = SignInService(users, self.sessions, credentials, google, clock)
        self.accounts = AccountService(users, self.sessions, self._hasher, clock)
        self.api_keys = ApiKeyService(users, self.stored_keys, revocations, clock)
        self.recovery = RecoveryService(
            users,
            links,
            self.sessions,
            self.api_keys,
            credentials=credentials,
            hasher=self._hasher,
            clock=clock,
            sends_mails=mailer is not None,
        )
        self.deletion = DeletionService(
            users,
            sessions,
            self.stored_keys,
            links,
            sessions=self.sessions,
            credentials=credentials,
            clock=clock,
        )
        self.audit = AuditService(trail)
        self.sightings = SightingService(sessions, self.stored_keys)
        self.mails = (
            MailService(users, links, mailer, texts=mail_with_link, clock=clock, rules=_link_rules(settings))
            if mailer is not None
            else None
        )

    async def prepare(self) -> None:
        """Make the indexes."""
        for store in self._stores:
            await store.prepare()

    def close(self) -> None:
        """Stop the threads that hash and that ask Google."""
        self._hasher.close()
        if self._google is not None:
            self._google.close()


def _link_rules(settings: AuthSettings) -> LinkRules:
    return LinkRules(
        key=derived_key(settings.secret_key.get_secret_value(), _LINK_PURPOSE),
        base_url=settings.public_url,
        lives={
            "verify_email": timedelta(hours=settings.verify_link_hours),
            "reset_password": timedelta(minutes=settings.reset_link_minutes),
        },
    )
