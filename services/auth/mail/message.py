"""From a mail to the message of RFC 5322. Nothing in a mail can add a header, a recipient or an SMTP command."""

from __future__ import annotations

import re
from datetime import datetime
from email.headerregistry import Address, AddressHeader
from email.message import EmailMessage
from email.utils import make_msgid

from email_validator import validate_email

from services.auth.ports import Mail, MailRefusedError

# RFC 5321's dot-string, with RFC 6531's characters beyond ASCII. Nothing that would need quotes.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+"
_LOCAL_PART = re.compile(rf"{_ATOM}(\.{_ATOM})*")
_DOMAIN = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")


def parse_sender(text: str) -> Address:
    """`Name <user@host>` or an address alone. Raises ValueError."""
    problem = ValueError(f"MAIL_FROM must be one address like DevPocket <no-reply@example.com>, not {text!r}")
    probe = EmailMessage()
    try:
        probe["From"] = text
        header = probe["From"]
        assert isinstance(header, AddressHeader)
        (found,) = header.addresses
        return _address(found.addr_spec, found.display_name)
    except ValueError:
        raise problem from None


def compose(mail: Mail, sender: Address, now: datetime) -> EmailMessage:
    """The message, dated `now`. Raises MailRefusedError when `mail.to` is no single address."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = recipient(mail)
    message["Subject"] = _one_line(mail.subject)
    message["Date"] = now
    message["Message-ID"] = make_msgid(domain=sender.domain)
    # No out-of-office replies to a mail that nobody wrote (RFC 3834).
    message["Auto-Submitted"] = "auto-generated"
    # Named, because the default would cut long lines up as quoted-printable, and with them the link.
    message.set_content(mail.text, charset="utf-8", cte="7bit" if mail.text.isascii() else "8bit")
    return message


def recipient(mail: Mail) -> Address:
    """Whom it goes to, the domain in ASCII. Raises MailRefusedError."""
    try:
        return _address(mail.to)
    except ValueError as error:
        raise MailRefusedError("This is not an address that mail can be sent to") from error


def _address(text: str, display_name: str = "") -> Address:
    # Not check_email of the schemas: senders are at names like localhost, too.
    local, _, domain = text.rpartition("@")
    if not (local.isprintable() and _LOCAL_PART.fullmatch(local)):
        raise ValueError("no local part that can be sent to")
    return Address(_one_line(display_name), local, _ascii(domain))


def _ascii(domain: str) -> str:
    if not domain.isascii():
        # Not Python's own codec: it follows IDNA 2003, which sends mail for straße.de to another domain, strasse.de.
        return validate_email(f"x@{domain}", check_deliverability=False, globally_deliverable=False).ascii_domain
    if not _DOMAIN.fullmatch(domain):
        raise ValueError("no domain that can be sent to")
    return domain


def _one_line(text: str) -> str:
    """Without line breaks of any kind, and without what cannot be seen."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
