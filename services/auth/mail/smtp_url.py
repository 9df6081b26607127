"""SMTP_URL: where the mail server is and how to speak to it. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self
from urllib.parse import unquote, urlsplit

_RELAY_PORT = 25
_SUBMISSION_PORT = 587
_IMPLICIT_TLS_PORT = 465


class Encryption(StrEnum):
    """How a connection is protected."""

    IMPLICIT = "implicit"
    """TLS from the first byte."""
    REQUIRED = "required"
    """STARTTLS, or no mail."""
    OFFERED = "offered"
    """STARTTLS where the server has it. Who can change traffic can turn that off, so no certificate is asked for."""


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """A mail server, with credentials if it wants some."""

    host: str
    port: int
    encryption: Encryption
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str) -> Self:
        """From smtp://[user:password@]host[:port] or smtps://…, user and password percent-encoded.

        Without a port: 465 for smtps, 587 with credentials, else 25. Raises ValueError, which never shows the URL.
        """
        try:
            return cls._parse(url)
        except ValueError:
            # Not chained: what urllib says may have a piece of the password in it.
            raise ValueError(
                "SMTP_URL must look like smtp://user:password@host:587 or smtps://user:password@host; "
                "user and password come together or not at all, and their special characters are percent-encoded"
            ) from None

    @classmethod
    def _parse(cls, url: str) -> Self:
        parts = urlsplit(url.strip())
        if parts.scheme not in {"smtp", "smtps"} or parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise ValueError
        host = parts.hostname
        if not host or parts.port == 0 or (not parts.username) != (not parts.password):
            raise ValueError
        # The resolver would raise the same, at every mail.
        host.encode("idna")
        username = unquote(parts.username, errors="strict") if parts.username else None
        password = unquote(parts.password, errors="strict") if parts.password else None
        if parts.scheme == "smtps":
            return cls(host, parts.port or _IMPLICIT_TLS_PORT, Encryption.IMPLICIT, username, password)
        exposed = username is not None and not is_loopback(host)
        encryption = Encryption.REQUIRED if exposed else Encryption.OFFERED
        default_port = _SUBMISSION_PORT if username is not None else _RELAY_PORT
        return cls(host, parts.port or default_port, encryption, username, password)


def is_loopback(host: str) -> bool:
    """Whether a connection to it stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
