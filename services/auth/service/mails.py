"""Mails with links, sent because an event asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

import structlog

from libs.common.clock import Clock
from libs.common.contracts.users import MailPurpose
from libs.common.errors import TemporaryError
from services.auth.domain.links import Link, link_hash, link_token
from services.auth.ports import Links, Mailer, MailRefusedError, MailTexts, MailUnavailableError, Users

_AGAIN_AFTER_S = 15.0
_PATHS: dict[MailPurpose, str] = {"verify_email": "verify-email", "reset_password": "reset-password"}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LinkRules:
    """`key` makes tokens; `base_url` is where links lead; `lives` is how long they are good for."""

    key: bytes
    base_url: str
    lives: dict[MailPurpose, timedelta]


class MailService:
    """Sends what was asked for. Told the same again, it sends the same link again."""

    def __init__(
        self, users: Users, links: Links, mailer: Mailer, texts: MailTexts, clock: Clock, *, rules: LinkRules
    ) -> None:
        self._users = users
        self._links = links
        self._mailer = mailer
        self._texts = texts
        self._clock = clock
        self._rules = rules

    async def send(self, user_id: str, purpose: MailPurpose, event_id: str, requested_at: datetime) -> None:
        """Send the mail that an event asks for, unless it would come too late. Raises TemporaryError."""
        user = await self._users.get(user_id)
        life = self._rules.lives[purpose]
        needless = user is None or not user.is_active or (purpose == "verify_email" and user.is_verified)
        if user is None or needless or requested_at + life <= self._clock():
            return
        token = link_token(self._rules.key, event_id)
        link = Link(
            hash=link_hash(token),
            user_id=user.id,
            purpose=purpose,
            email=user.email,
            requested_at=requested_at,
            expires_at=requested_at + life,
        )
        await self._links.keep(link)
        url = f"{self._rules.base_url.rstrip('/')}/api/v1/auth/{_PATHS[purpose]}?{urlencode({'token': token})}"
        try:
            await self._mailer.send(self._texts(purpose, user.email, user.full_name or user.username, url, life))
        except MailRefusedError as error:
            log.warning("mail refused", user_id=user_id, purpose=purpose, reason=str(error))
        except MailUnavailableError as error:
            raise TemporaryError(f"mail not sent yet: {error}", delay_s=_AGAIN_AFTER_S) from error
