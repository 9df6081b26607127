"""Links in mails: tokens that work once and not for long. Pure.

A token is derived from the event that asked for the mail: whoever has to send it again sends the same one, and it is
stored nowhere but in the mail. Only its hash is kept.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime

from libs.common.contracts.users import MailPurpose
from services.auth.domain.users import User
from services.auth.errors import InvalidLinkError


def link_token(key: bytes, event_id: str) -> str:
    """43 URL-safe characters that only holders of `key` can make."""
    digest = hmac.new(key, event_id.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def link_hash(token: str) -> str:
    """What a link is stored by."""
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link that was mailed to `email`."""

    hash: str
    user_id: str
    purpose: MailPurpose
    email: str
    requested_at: datetime
    expires_at: datetime

    def require_fits(self, user: User) -> None:
        """Raises InvalidLinkError when the account has moved on: another address, another password, gone."""
        changed_at = user.password_changed_at
        outdated = self.purpose == "reset_password" and changed_at is not None and self.requested_at < changed_at
        if outdated or not user.is_active or user.email != self.email:
            raise InvalidLinkError
