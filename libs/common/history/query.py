"""Which events somebody asks for. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from libs.common.history.errors import BadTimeError
from libs.common.history.recorded import Recorded

ALL_EVENTS = "devpocket.>"
SUBJECT_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")
_AGO = re.compile(r"(\d{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class EventQuery:
    """`type` matches the full type or a run of its parts: `created`, `env.created`.

    `user` means the user's own events and those about what belongs to the user.
    """

    environment: str | None = None
    type: str | None = None
    since: datetime | None = None
    user: str | None = None
    correlation: str | None = None

    @property
    def subject(self) -> str:
        """Everything about one environment carries its id as the third token, so the server can filter."""
        return f"devpocket.*.{self.environment}.>" if self.environment else ALL_EVENTS

    @property
    def is_server_side(self) -> bool:
        """Whether the server's filter is all of it."""
        return self.type is None and self.user is None and self.correlation is None

    def matches(self, item: Recorded) -> bool:
        """Whether the event is meant."""
        if self.environment is not None and item.about != self.environment:
            return False
        if self.since is not None and item.stored_at < self.since:
            return False
        if self.correlation is not None and not self._follows(item, self.correlation):
            return False
        if self.user is not None and not self._belongs(item, self.user):
            return False
        return self.type is None or type_matches(item.type, self.type)

    @staticmethod
    def _follows(item: Recorded, correlation: str) -> bool:
        # Most messages of a long stream are ruled out without being parsed.
        if correlation.encode() not in item.payload:
            return False
        return (item.envelope or {}).get("correlationid") == correlation

    @staticmethod
    def _belongs(item: Recorded, user: str) -> bool:
        if item.subject.startswith(f"devpocket.user.{user}."):
            return True
        if user.encode() not in item.payload:
            return False
        data = (item.envelope or {}).get("data")
        return isinstance(data, dict) and data.get("user_id") == user


def type_matches(full: str, wanted: str) -> bool:
    """Whether `wanted` is the type or a run of its parts."""
    return f".{wanted.strip('.')}." in f".{full}."


def parse_time(text: str, now: datetime | None = None) -> datetime:
    """`10m` (ago) as a time, or an ISO 8601 time (UTC unless it says otherwise). Raises BadTimeError."""
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return (now or datetime.now(UTC)) - timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]])
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise BadTimeError(f"{text[:60]}: write 30s, 10m, 2h, 7d, or a time such as 2026-11-23T15:00:00Z") from error
