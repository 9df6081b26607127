"""Hands mails to an SMTP server, one connection per mail."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from email.message import EmailMessage
from typing import NoReturn

import structlog
from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPDataError,
    SMTPException,
    SMTPNotSupported,
    SMTPRecipientsRefused,
    SMTPResponseException,
)

from libs.common.clock import Clock, utc_now
from services.auth.mail.message import compose, parse_sender, recipient
from services.auth.mail.smtp_url import Encryption, SmtpServer
from services.auth.ports import Mail, MailRefusedError, MailUnavailableError

_STEP_TIMEOUT_S = 10.0
_TOTAL_TIMEOUT_S = 30.0
_FAREWELL_TIMEOUT_S = 2.0
_MAX_REPLY_CHARS = 200
# Answers to RCPT that are about our credentials, not about the recipient: RFC 4954, and a command out of order.
_ABOUT_US = frozenset({503, 530, 534, 535, 538})

log = structlog.get_logger(__name__)


class SmtpMailer:
    """Sends as `sender` (`Name <address>`), within `timeout_s` seconds per mail.

    `tls` replaces the context that knows the system's certificates, where certificates are checked at all.
    """

    def __init__(
        self,
        server: SmtpServer,
        sender: str,
        *,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = _TOTAL_TIMEOUT_S,
        clock: Clock = utc_now,
    ) -> None:
        self._server = server
        self._sender = parse_sender(sender)
        self._timeout_s = timeout_s
        self._clock = clock
        self._tls = _unverified() if server.encryption is Encryption.OFFERED else tls or ssl.create_default_context()

    async def send(self, mail: Mail) -> None:
        """Returns when the server has taken it. Raises MailRefusedError, MailUnavailableError."""
        message, to = compose(mail, self._sender, self._clock()), recipient(mail).addr_spec
        client = self._client()
        try:
            await self._hand_over(client, message, to)
            # The server has the mail: what goes wrong from here on must not have it sent again.
            with contextlib.suppress(SMTPException, OSError):
                await client.quit(timeout=_FAREWELL_TIMEOUT_S)
        finally:
            client.close()

    async def _hand_over(self, client: SMTP, message: EmailMessage, to: str) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await client.connect()
                await client.send_message(message, sender=self._sender.addr_spec, recipients=[to])
        except SMTPAuthenticationError as error:
            log.error(
                "the mail server refuses our credentials, check user and password in SMTP_URL",
                host=self._server.host,
                code=error.code,
            )
            # Not chained: the server may have said the credentials back.
            raise MailUnavailableError("The mail server refuses our credentials") from None
        except SMTPRecipientsRefused as error:
            refusal = error.recipients[0]
            if refusal.code in _ABOUT_US:
                self._unavailable(refusal, to)
            self._answered(refusal, to)
        except SMTPDataError as error:
            self._answered(error, to)
        except SMTPNotSupported as error:
            # What is in ASCII only needs no extension.
            if to.isascii():
                self._unavailable(error, to)
            log.warning("the mail server takes no addresses beyond ASCII", host=self._server.host)
            raise MailRefusedError("The mail server takes no addresses with such characters") from error
        except (SMTPException, OSError) as error:
            self._unavailable(error, to)

    def _answered(self, error: SMTPResponseException, to: str) -> NoReturn:
        """A no to this recipient, or to this mail for them: for good with 5xx."""
        if error.code < 500:
            self._unavailable(error, to)
        log.warning("the mail server refuses a mail", host=self._server.host, reply=_reply(error, to))
        raise MailRefusedError(f"The mail server refuses this mail with code {error.code}") from error

    def _unavailable(self, error: Exception, to: str) -> NoReturn:
        log.warning("mail could not be handed over", host=self._server.host, error=_reply(error, to))
        raise MailUnavailableError("The mail server does not take the mail right now") from error

    def _client(self) -> SMTP:
        server = self._server
        return SMTP(
            hostname=server.host,
            port=server.port,
            username=server.username,
            password=server.password,
            timeout=min(_STEP_TIMEOUT_S, self._timeout_s),
            use_tls=server.encryption is Encryption.IMPLICIT,
            start_tls={Encryption.IMPLICIT: False, Encryption.REQUIRED: True, Encryption.OFFERED: None}[
                server.encryption
            ],
            tls_context=self._tls,
        )


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _reply(error: Exception, to: str) -> str:
    """What went wrong, for the log: in one line, bounded, and without the recipient."""
    if isinstance(error, SMTPResponseException):
        text = f"{error.code} {error.message}"
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.replace(to, "<recipient>").split())[:_MAX_REPLY_CHARS]
