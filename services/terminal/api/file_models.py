"""What the routes for files and commands take and give."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from services.terminal.service.commands import Command, Outcome
from services.terminal.service.files import Page, Stored
from services.terminal.workspace.entries import Entry, EntryType
from services.terminal.workspace.errors import InvalidCursorError
from services.terminal.workspace.paths import WorkspacePath

_MOST_ARGUMENTS = 1000
_MOST_VARIABLES = 100
# What a command line and its variables may hold together on the way into a cluster.
_MOST_COMMAND_BYTES = 64 * 1024
_MOST_INPUT_CHARS = 1024 * 1024
_LONGEST_CURSOR = 400


def _passable(text: str) -> str:
    """What a program can be given: no NUL, and no half of a character, which JSON can name."""
    if "\0" in text:
        raise ValueError("must not hold a NUL")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("must be valid Unicode") from error
    return text


def _sendable(text: str) -> str:
    _passable(text.replace("\0", ""))
    return text


def _short(command: list[str] | str) -> list[str] | str:
    parts = [command] if isinstance(command, str) else command
    if sum(len(part.encode()) + 1 for part in parts) > _MOST_COMMAND_BYTES:
        raise ValueError(f"must not be longer than {_MOST_COMMAND_BYTES // 1024} KiB")
    if not parts[0]:
        raise ValueError("must name a program")
    return command


def _few(variables: dict[str, str]) -> dict[str, str]:
    if sum(len(name) + len(value.encode()) + 2 for name, value in variables.items()) > _MOST_COMMAND_BYTES:
        raise ValueError(f"must not be larger than {_MOST_COMMAND_BYTES // 1024} KiB together")
    return variables


_Text = Annotated[str, AfterValidator(_passable)]
_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,252}$")]
_Arguments = Annotated[list[_Text], Field(min_length=1, max_length=_MOST_ARGUMENTS)]


class ExecRequest(BaseModel):
    """One command, run in /workspace without a terminal."""

    model_config = ConfigDict(extra="forbid")

    command: Annotated[_Arguments | _Text, AfterValidator(_short)] = Field(
        description="A program and its arguments, or a line for the user's login shell"
    )
    stdin: Annotated[str, Field(max_length=_MOST_INPUT_CHARS), AfterValidator(_sendable)] | None = None
    timeout_seconds: float = Field(default=60.0, ge=1, le=600, description="When it is over, all is ended")
    environment_variables: Annotated[dict[_Name, _Text], Field(max_length=_MOST_VARIABLES), AfterValidator(_few)] = (
        Field(default_factory=dict, description="In addition to the environment's own")
    )
    encoding: Literal["utf-8", "base64"] = Field(
        default="utf-8", description="Of stdout and stderr; in utf-8, what is none becomes U+FFFD"
    )

    def to_domain(self) -> Command:
        """As the service takes it."""
        stdin = (self.stdin or "").encode()
        return Command(self.command, self.timeout_seconds, stdin, self.environment_variables)


class ExecAnswer(BaseModel):
    """How it went."""

    exit_code: int | None = Field(description="128 + n when signal n ended it; null when its time was up")
    stdout: str
    stderr: str
    duration_ms: int
    timed_out: bool
    truncated: bool = Field(description="It wrote more than the first MiB of stdout or stderr that is given here")
    encoding: Literal["utf-8", "base64"]

    @classmethod
    def of(cls, outcome: Outcome, encoding: Literal["utf-8", "base64"]) -> Self:
        """As the service knows it."""

        def text(data: bytes) -> str:
            return base64.b64encode(data).decode() if encoding == "base64" else data.decode("utf-8", "replace")

        return cls(
            exit_code=outcome.exit_code,
            stdout=text(outcome.stdout),
            stderr=text(outcome.stderr),
            duration_ms=outcome.duration_ms,
            timed_out=outcome.timed_out,
            truncated=outcome.is_truncated,
            encoding=encoding,
        )


class DirectoryEntry(BaseModel):
    """Something in a directory. Links are not followed."""

    name: str = Field(description="Bytes that are no UTF-8 are shown as U+FFFD")
    path: str = Field(description="As it goes into the URL, percent-encoded, whatever bytes the name has")
    type: EntryType
    size: int
    modified: datetime
    mode: str = Field(description="Permissions in octal, such as 0644")

    @classmethod
    def of(cls, entry: Entry, directory: WorkspacePath) -> Self:
        """As the service knows it."""
        return cls(
            name=entry.name.decode("utf-8", "replace"),
            path=directory.child(entry.name).url,
            type=entry.type,
            size=entry.size,
            modified=entry.modified,
            mode=entry.permissions,
        )


class DirectoryAnswer(BaseModel):
    """A page of a directory, sorted by the bytes of the names. `next_cursor` is null on the last page."""

    path: str
    entries: list[DirectoryEntry]
    next_cursor: str | None

    @classmethod
    def of(cls, page: Page, directory: WorkspacePath) -> Self:
        """As the service knows it."""
        return cls(
            path=directory.text,
            entries=[DirectoryEntry.of(entry, directory) for entry in page.entries],
            next_cursor=None if page.next_after is None else encode_cursor(page.next_after),
        )


class StoredAnswer(BaseModel):
    """What was stored. `size` in bytes; of an archive, that of the directory's own record."""

    path: str
    size: int
    modified: datetime
    etag: str

    @classmethod
    def of(cls, stored: Stored, path: WorkspacePath) -> Self:
        """As the service knows it."""
        found = stored.attributes
        return cls(path=path.text, size=found.size, modified=found.modified, etag=found.etag)


def encode_cursor(name: bytes) -> str:
    """Text that is safe in a URL."""
    return base64.urlsafe_b64encode(name).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> bytes | None:
    """The name that a page has ended with. Raises InvalidCursorError."""
    if cursor is None:
        return None
    try:
        name = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidCursorError from error
    if not name or len(cursor) > _LONGEST_CURSOR or b"/" in name or b"\0" in name:
        raise InvalidCursorError
    return name
