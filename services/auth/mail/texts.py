"""What the mails say. Pure."""

from __future__ import annotations

import re
from datetime import timedelta

from libs.common.contracts.users import MailPurpose
from services.auth.ports import Mail

_MAX_NAME_CHARS = 60
# Anybody can register a stranger's address: the name must not carry a message or something that becomes a link.
_NO_NAME = re.compile(r"[:/@\\<>]|\w\.\w")


def mail_with_link(purpose: MailPurpose, to: str, name: str, link: str, life: timedelta) -> Mail:
    """See MailTexts."""
    minutes = round(life.total_seconds() / 60)
    if purpose == "verify_email":
        return verification_mail(to, name, link, minutes // 60)
    return reset_mail(to, name, link, minutes)


def verification_mail(to: str, name: str | None, link: str, hours: int) -> Mail:
    """Asks whether the address belongs to who registered it; the link is good for `hours`."""
    text = f"""{_greeting(name)}

Welcome to DevPocket! Please confirm that this is your email address:

{link}

The link is good for {_count(hours, "hour")}. After that, ask for a new one in the app.

You did not create a DevPocket account? Then somebody has mistyped their address.
Just ignore this mail, and the address stays unconfirmed.
"""
    return Mail(to=to, subject="Confirm your email address for DevPocket", text=text, link=link)


def reset_mail(to: str, name: str | None, link: str, minutes: int) -> Mail:
    """Lets who has lost the password choose a new one; the link is good for `minutes`."""
    hours, rest = divmod(minutes, 60)
    duration = _count(minutes, "minute") if rest else _count(hours, "hour")
    text = f"""{_greeting(name)}

Somebody, hopefully you, has asked for a new password for your DevPocket account.
Choose one here:

{link}

The link is good for {duration} and works once.

You did not ask for it? Then ignore this mail: your password stays as it is.
Do not pass the link on. Whoever has it can take over your account.
"""
    return Mail(to=to, subject="Choose a new password for DevPocket", text=text, link=link)


def _greeting(name: str | None) -> str:
    shown = " ".join((name or "").split())
    if not shown or len(shown) > _MAX_NAME_CHARS or not shown.isprintable() or _NO_NAME.search(shown):
        return "Hello,"
    return f"Hello {shown},"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"
