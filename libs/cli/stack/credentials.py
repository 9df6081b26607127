"""Credentials of the local stack: generated at the first start, kept for as long as the data folder lives."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from libs.cli.stack.paths import write_private

# 32 bytes are as strong as the keys they protect; the URL alphabet keeps connection URLs free of escapes.
_SECRET_BYTES = 32


def _random() -> str:
    return secrets.token_urlsafe(_SECRET_BYTES)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Never shown: not in `repr`, not in argument lists, not in stack.json."""

    secret_key: str = field(default_factory=_random, repr=False)
    redis_password: str = field(default_factory=_random, repr=False)
    nats_user: str = field(default="devpocket", repr=False)
    nats_password: str = field(default_factory=_random, repr=False)
    mongo_user: str = field(default="devpocket", repr=False)
    mongo_password: str = field(default_factory=_random, repr=False)


def load_or_create(path: Path, make: Callable[[], Credentials] = Credentials) -> Credentials:
    """The credentials at `path`; what is missing there is generated and written before it is used."""
    known: dict[str, str] = {}
    if path.exists():
        stored = json.loads(path.read_text())
        known = {item.name: stored[item.name] for item in fields(Credentials) if item.name in stored}
    credentials = Credentials(**{**asdict(make()), **known})
    if asdict(credentials) != known:
        write_private(path, json.dumps(asdict(credentials), indent=2))
    return credentials
