"""What RFC 9110 says about parts of files, and about files that have changed. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from services.terminal.workspace.entries import Attributes
from services.terminal.workspace.errors import FileChangedError, RangeError

_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from `start` up to but not including `end` of a file of `size`."""

    start: int
    end: int
    size: int

    @property
    def length(self) -> int:
        """In bytes."""
        return self.end - self.start

    @property
    def content_range(self) -> str:
        """The header's value."""
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


def wanted_part(headers: Mapping[str, str], found: Attributes) -> Part | None:
    """What Range asks for; None means all of it, also when several ranges are asked for, or when If-Range names
    another file than there is. Raises RangeError."""
    match = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if match is None or headers.get("if-range", found.etag) != found.etag:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, end = max(found.size - int(suffix), 0), found.size
    else:
        start, end = int(first), min(int(last) + 1, found.size) if last else found.size
        if last and int(last) < start:
            return None
    if start >= end:
        raise RangeError(found.size)
    return Part(start, end, found.size)


def is_known(headers: Mapping[str, str], found: Attributes) -> bool:
    """Whether the client has this very file already (If-None-Match)."""
    known = headers.get("if-none-match")
    return known is not None and _names(known, found.etag, weak=True)


def check_target(headers: Mapping[str, str], found: Attributes | None) -> None:
    """Whether a file may be replaced or made: If-Match and If-None-Match. Raises FileChangedError."""
    wanted, unwanted = headers.get("if-match"), headers.get("if-none-match")
    if wanted is not None and (found is None or not _names(wanted, found.etag, weak=False)):
        raise FileChangedError
    if unwanted is not None and found is not None and _names(unwanted, found.etag, weak=True):
        raise FileChangedError


def is_conditional(headers: Mapping[str, str]) -> bool:
    """Whether `check_target` looks at anything."""
    return "if-match" in headers or "if-none-match" in headers


def _names(header: str, etag: str, *, weak: bool) -> bool:
    tags = [tag.strip() for tag in header.split(",")]
    return "*" in tags or etag in tags or (weak and f"W/{etag}" in tags)
