"""What auth tells Prometheus beside what every service does."""

from __future__ import annotations

from prometheus_client import Counter

from libs.common.metrics.registry import Metrics
from services.auth.domain.sessions import Device
from services.auth.errors import (
    AccountInactiveError,
    AccountLockedError,
    IncorrectCredentialsError,
    InvalidGoogleTokenError,
)
from services.auth.ports import Mail, Mailer, MailRefusedError, MailUnavailableError
from services.auth.service.sessions import Tokens
from services.auth.service.sign_in import SignInService

_OUTCOMES = ("succeeded", "failed", "locked")
_MAIL_OUTCOMES = ("sent", "refused", "unavailable")


class CountedSignIn:
    """Sign-ins, with their outcome counted."""

    def __init__(self, sign_in: SignInService, metrics: Metrics) -> None:
        self._sign_in = sign_in
        self._logins = Counter(
            "devpocket_logins_total",
            "Sign-ins by method (password, google) and outcome: succeeded, failed, locked.",
            ("method", "outcome"),
            registry=metrics.registry,
        )
        for outcome in _OUTCOMES:
            self._logins.labels("password", outcome)

    async def with_password(self, name_or_email: str, password: str, device: Device) -> Tokens:
        """See SignInService."""
        try:
            tokens = await self._sign_in.with_password(name_or_email, password, device)
        except AccountLockedError:
            self._logins.labels("password", "locked").inc()
            raise
        except (IncorrectCredentialsError, AccountInactiveError):
            self._logins.labels("password", "failed").inc()
            raise
        self._logins.labels("password", "succeeded").inc()
        return tokens

    async def with_google(self, token: str, device: Device) -> Tokens:
        """See SignInService."""
        try:
            tokens = await self._sign_in.with_google(token, device)
        except (InvalidGoogleTokenError, AccountInactiveError):
            self._logins.labels("google", "failed").inc()
            raise
        self._logins.labels("google", "succeeded").inc()
        return tokens


def mail_counter(metrics: Metrics) -> Counter:
    """For the mailer; it is there, and zero, where no mails are sent."""
    mails = Counter(
        "devpocket_mails_total",
        "Mails handed over, by outcome: sent, refused (for good), unavailable (will be tried again).",
        ("outcome",),
        registry=metrics.registry,
    )
    for outcome in _MAIL_OUTCOMES:
        mails.labels(outcome)
    return mails


class CountedMailer:
    """Mailer: what became of each mail is counted."""

    def __init__(self, mailer: Mailer, mails: Counter) -> None:
        self._mailer = mailer
        self._mails = mails

    async def send(self, mail: Mail) -> None:
        """See Mailer."""
        try:
            await self._mailer.send(mail)
        except MailRefusedError:
            self._mails.labels("refused").inc()
            raise
        except MailUnavailableError:
            self._mails.labels("unavailable").inc()
            raise
        self._mails.labels("sent").inc()
