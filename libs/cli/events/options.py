"""What the commands about events are told, and how it is read."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from libs.cli.options import fail

if TYPE_CHECKING:
    from libs.common.history.query import EventQuery

Environment = Annotated[str | None, typer.Option("--env", metavar="ID", help="Only events about this environment.")]
Type = Annotated[
    str | None,
    typer.Option("--type", help="Only this type: devpocket.env.created.v1, or a part of it such as created."),
]
Since = Annotated[
    str | None, typer.Option("--since", help="Only events since then: 30s, 10m, 2h, 7d, or an ISO 8601 time.")
]
Newest = Annotated[int | None, typer.Option("--limit", min=1, help="At most this many, the newest.")]
Slice = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="Read an export instead of a running stack.")
]

_SUBJECT_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")


def read_time(option: str, text: str | None, now: datetime | None = None) -> datetime | None:
    """`10m` (ago) as a time, or an ISO 8601 time (UTC unless it says otherwise)."""
    from libs.common.history.errors import BadTimeError
    from libs.common.history.query import parse_time

    if text is None:
        return None
    try:
        return parse_time(text, now)
    except BadTimeError as error:
        fail(f"{option} {error}", code=2)


def parse_since(text: str | None, now: datetime | None = None) -> datetime | None:
    """See `read_time`."""
    return read_time("--since", text, now)


def token(option: str, text: str | None, what: str) -> str | None:
    """It becomes part of a subject, where dots and wildcards mean something else."""
    if text is not None and not _SUBJECT_TOKEN.fullmatch(text):
        fail(f"{option} {text}: that is no {what}", code=2)
    return text


def query_of(
    environment: str | None = None,
    event_type: str | None = None,
    since: str | None = None,
    user: str | None = None,
    correlation: str | None = None,
) -> EventQuery:
    """The question in the options, or an end with code 2."""
    from libs.common.history.query import EventQuery

    return EventQuery(
        environment=token("--env", environment, "environment id"),
        type=event_type,
        since=parse_since(since),
        user=token("--user", user, "user id"),
        correlation=correlation,
    )
