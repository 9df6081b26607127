"""What differs between a stream as it is and as it is declared, and making it so when somebody says so.

No service does: replicas with other settings, of two versions, would undo what the others have done. They say what
differs when they start; `devpocket streams apply` changes it, once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from nats.js.errors import APIError, NotFoundError

from libs.common.errors import DevPocketError, ErrorKind
from libs.common.messaging.streams import stream_configs
from libs.common.settings import CommonSettings


class StreamChangeRefusedError(DevPocketError):
    """Nothing was changed; the text says what would be lost, or what the server will not do."""

    kind = ErrorKind.CONFLICT
    code = "stream_change_refused"


@dataclass(frozen=True, slots=True)
class Change:
    """`loses`: what is lost by it, or None. Times are in seconds."""

    stream: str
    field: str
    current: Any
    wanted: Any
    loses: str | None = None

    def __str__(self) -> str:
        loss = f" ({self.loses})" if self.loses else ""
        return f"{self.stream} {self.field}: {self.current} -> {self.wanted}{loss}"


def _forever(seconds: float | None) -> float:
    return seconds or float("inf")


def _fewer_subjects(current: list[str], wanted: list[str]) -> bool:
    return not all(any(_covers(wide, narrow) for wide in wanted) for narrow in current)


def _covers(wide: str, narrow: str) -> bool:
    """Whether every subject of one pattern is one of the other's."""
    ours, theirs = wide.split("."), narrow.split(".")
    for place, word in enumerate(ours):
        if word == ">":
            return len(theirs) > place
        if place >= len(theirs) or theirs[place] == ">" or word not in ("*", theirs[place]):
            return False
    return len(ours) == len(theirs)


# What is declared, what it takes to lose something by a change, and what that is. Everything else about a stream
# (limits of size, placement) is the operator's and stays as it is.
_DECLARED: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "subjects": (_fewer_subjects, "events on subjects that are left out are not kept any more"),
    "max_age": (lambda current, wanted: _forever(wanted) < _forever(current), "older events are removed at once"),
    "duplicate_window": (lambda current, wanted: wanted < current, "repeated events are noticed for a shorter time"),
    "num_replicas": (lambda current, wanted: wanted < current, "fewer copies"),
    "deny_delete": (lambda current, wanted: current and not wanted, "events may be deleted one by one"),
    "storage": (lambda current, wanted: current != wanted, "the server cannot change it"),
    "retention": (lambda current, wanted: current != wanted, "the server cannot change it"),
}


def compare(current: StreamConfig, wanted: StreamConfig) -> list[Change]:
    """What would have to change."""
    found = []
    for field, (loses, what) in _DECLARED.items():
        is_now, is_to_be = getattr(current, field), getattr(wanted, field)
        if (is_now or None) != (is_to_be or None):
            loss = what if loses(is_now, is_to_be) else None
            found.append(Change(wanted.name or "", field, is_now, is_to_be, loss))
    return found


async def changes(js: JetStreamContext, settings: CommonSettings) -> list[Change]:
    """Of all streams that exist. Raises nats-py's errors."""
    found: list[Change] = []
    for wanted in stream_configs(settings):
        try:
            info = await js.stream_info(wanted.name or "")
        except NotFoundError:
            continue
        found += compare(info.config, wanted)
    return found


async def apply(js: JetStreamContext, settings: CommonSettings, *, allow_loss: bool) -> list[Change]:
    """Make the streams that exist as they are declared; returns what was changed. Raises StreamChangeRefusedError."""
    todo = await changes(js, settings)
    losing = [change for change in todo if change.loses]
    if losing and not allow_loss:
        raise StreamChangeRefusedError(
            f"something would be lost: {'; '.join(map(str, losing))}. Nothing was changed; allow it with --allow-loss"
        )
    for wanted in stream_configs(settings):
        mine = {change.field: change.wanted for change in todo if change.stream == wanted.name}
        if not mine:
            continue
        info = await js.stream_info(wanted.name or "")
        try:
            await js.update_stream(replace(info.config, **mine))
        except APIError as error:
            raise StreamChangeRefusedError(f"{wanted.name} was not changed: {error.description}") from error
    return todo
