"""Files of a workspace: looking, reading, storing, deleting. Whatever their size, memory stays that of a few pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from libs.common.contracts.identity import PLAN_LIMITS
from libs.runtime.port import ExecRuntime
from services.terminal.domain import Caller, Environment
from services.terminal.service.work import Work, Workbench
from services.terminal.workspace import scripts
from services.terminal.workspace.archives import Gunzip, TarCheck
from services.terminal.workspace.conversation import Conversation, talking
from services.terminal.workspace.entries import Attributes, Entry, Listing
from services.terminal.workspace.errors import (
    BadPathError,
    BadUploadError,
    CutShortError,
    FileTooLargeError,
    NotDirectoryError,
)
from services.terminal.workspace.paths import WorkspacePath
from services.terminal.workspace.scripts import Script

# A script says what there is as soon as it runs; putting in place is a rename, but an archive is unpacked before it,
# and deleting takes as long as the directory is large.
_LOOK_SECONDS = 30.0
_FINISH_SECONDS = 1800.0
_END_SECONDS = 10.0
# However slowly a client sends.
_UPLOAD_SECONDS = 12 * 3600.0
# What is left of an upload that broke off is removed within.
_TIDY_SECONDS = 2.0
# From here on a shell says that a program was not there, or died of a signal; below, that something was left out.
_NOT_DONE = 126

Wants = Callable[[Attributes | None], None]
"""Raises when what is there is not what the client expects."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What an upload has led to."""

    attributes: Attributes
    is_new: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a directory; `next_after` is the last name of it when there is more."""

    entries: list[Entry]
    next_after: bytes | None


class Found:
    """A file or a directory that is held open in the workspace. One of the methods can be used, once."""

    def __init__(self, conversation: Conversation, work: Work, mark: str, said: str) -> None:
        kind, _, line = said.partition("|")
        self.is_directory = kind == "directory"
        self.attributes = Attributes.parse(line)
        self._conversation = conversation
        self._work = work
        self._mark = mark

    async def taken_away(self) -> None:
        """Until it is closed from our side, be it because the client has taken nothing for too long."""
        await self._work.closed()

    async def content(self, start: int, length: int) -> AsyncGenerator[bytes]:
        """`length` bytes from `start` on, no less. Raises CutShortError when the file has become shorter."""
        await self._conversation.tell(b"%d\n" % start)
        left = length
        async with aclosing(self._passed()) as pieces:
            async for piece in pieces:
                yield piece[:left]
                left -= min(left, len(piece))
                if not left:
                    return
        if left:
            raise CutShortError

    async def archive(self) -> AsyncGenerator[bytes]:
        """The directory as tar.gz. Raises CutShortError when it could not be finished, and NotDirectoryError."""
        if not self.is_directory:
            raise NotDirectoryError
        await self._conversation.tell(b"archive\n")
        async with aclosing(self._passed()) as pieces:
            async for piece in pieces:
                yield piece
        code = await self._conversation.exit_code(_END_SECONDS)
        *_, said = (await self._conversation.last_errors(_END_SECONDS)).rstrip().rpartition(f"{self._mark}|".encode())
        if code != 0 or not said.isdigit() or int(said) >= _NOT_DONE:
            raise CutShortError

    async def list(self, after: bytes | None, limit: int) -> Page:
        """The first `limit` entries of the directory whose names come after `after`, by their bytes."""
        await self._conversation.tell(b"list\n")
        listing = Listing(self._mark, after, limit)
        async for piece in self._conversation.content():
            listing.feed(piece)
        entries, has_more = listing.finish()
        return Page(entries, entries[-1].name if has_more else None)

    async def _passed(self) -> AsyncGenerator[bytes]:
        async for piece in self._conversation.content():
            with self._work.waiting_for_client():
                yield piece


class Files:
    """Goes through `exec` for everything: no file of a workspace is in reach otherwise."""

    def __init__(self, runtime: ExecRuntime, workbench: Workbench) -> None:
        self._runtime = runtime
        self._workbench = workbench

    @asynccontextmanager
    async def found(self, caller: Caller, environment: Environment, path: WorkspacePath) -> AsyncIterator[Found]:
        """What is at this path. Raises FileMissingError, PathOutsideError and others of workspace.errors."""
        script = scripts.reading(path)
        async with self._talking(caller, environment, script) as (work, conversation):
            said = await conversation.hear(_LOOK_SECONDS)
            yield Found(conversation, work, script.mark, said)

    async def store(
        self,
        caller: Caller,
        environment: Environment,
        path: WorkspacePath,
        body: AsyncIterator[bytes],
        *,
        wants: Wants | None = None,
    ) -> Stored:
        """Put a file there, at once or not at all. Raises FileTooLargeError, DiskFullError and others."""
        _check_place(path)
        if path.is_root:
            raise BadPathError("The path names no file")
        limit = largest_upload(caller)
        script = scripts.storing(path, unless_changed=wants is not None)
        return await self._upload(caller, environment, script, lambda work: _counted(body, work, limit), wants)

    async def unpack(
        self, caller: Caller, environment: Environment, path: WorkspacePath, body: AsyncIterator[bytes]
    ) -> Stored:
        """Unpack a tar.gz into the directory: what it holds replaces what has the same name, the rest stays.

        Nothing of it is there before all of it was checked and unpacked beside. Raises BadArchiveError and others.
        """
        _check_place(path)
        limit = largest_upload(caller)

        def checked(work: Work) -> AsyncIterator[bytes]:
            return _checked(_counted(body, work, limit), path, limit)

        return await self._upload(caller, environment, scripts.unpacking(path), checked, None)

    async def delete(self, caller: Caller, environment: Environment, path: WorkspacePath, *, recursive: bool) -> None:
        """A file, a link or a directory. Raises FileMissingError, DirectoryNotEmptyError and others."""
        _check_place(path)
        if path.is_root:
            raise BadPathError("The workspace itself cannot be deleted this way, only what is in it")
        script = scripts.deleting(path, recursive=recursive)
        async with self._talking(caller, environment, script) as (_, conversation):
            await conversation.hear(_FINISH_SECONDS)

    async def _upload(
        self,
        caller: Caller,
        environment: Environment,
        script: Script,
        pieces_for: Callable[[Work], AsyncIterator[bytes]],
        wants: Wants | None,
    ) -> Stored:
        async with self._talking(caller, environment, script, tidy_seconds=_TIDY_SECONDS) as (work, conversation):
            _, _, before = (await conversation.hear(_LOOK_SECONDS)).partition("|")
            if wants is not None:
                wants(Attributes.parse(before) if before else None)
            said = await _sent(conversation, pieces_for(work))
            _, outcome, line = said.split("|", 2)
            return Stored(Attributes.parse(line), is_new=outcome != "replaced")

    @asynccontextmanager
    async def _talking(
        self, caller: Caller, environment: Environment, script: Script, *, tidy_seconds: float = 0.0
    ) -> AsyncIterator[tuple[Work, Conversation]]:
        async with self._workbench.working(caller, environment) as work:
            stream = work.holds(await self._runtime.exec(environment.ref, script.argv, tty=False))
            async with talking(stream, script, patience_seconds=tidy_seconds) as conversation:
                yield work, conversation


def largest_upload(caller: Caller) -> int:
    """In bytes, by the caller's plan."""
    return PLAN_LIMITS[caller.plan].largest_file_bytes


def _check_place(path: WorkspacePath) -> None:
    if path.is_reserved:
        raise BadPathError("This directory is where uploads wait until they are complete, and goes by itself")


async def _sent(conversation: Conversation, pieces: AsyncIterator[bytes]) -> str:
    """Send all, and what is said to it, which may be a refusal in the middle."""
    sending = asyncio.create_task(_send(conversation, pieces))
    answering = asyncio.create_task(conversation.hear(_UPLOAD_SECONDS))
    try:
        await asyncio.wait({sending, answering}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            try:
                await sending
            except BrokenPipeError:
                # It has ended; its last words are on their way.
                async with asyncio.timeout(_END_SECONDS):
                    return await answering
            async with asyncio.timeout(_FINISH_SECONDS):
                await asyncio.wait({answering})
        return await answering
    finally:
        sending.cancel()
        answering.cancel()
        await asyncio.gather(sending, answering, return_exceptions=True)


async def _send(conversation: Conversation, pieces: AsyncIterator[bytes]) -> None:
    async for piece in pieces:
        await conversation.tell(piece)
    await conversation.seal()


async def _counted(body: AsyncIterator[bytes], work: Work, limit: int) -> AsyncIterator[bytes]:
    total = 0
    while True:
        with work.waiting_for_client():
            piece = await anext(body, None)
        if piece is None:
            return
        total += len(piece)
        if total > limit:
            raise FileTooLargeError(limit)
        if piece:
            yield piece


async def _checked(body: AsyncIterator[bytes], path: WorkspacePath, limit: int) -> AsyncIterator[bytes]:
    """The tar in a tar.gz, up to its end."""
    gunzip, check = Gunzip(), TarCheck(path, limit)
    async for data in body:
        for piece in gunzip.feed(data):
            belongs = check.feed(piece)
            if belongs:
                yield piece[:belongs]
            # A little may unpack to very much: others have their turn in between.
            await asyncio.sleep(0)
    gunzip.finish()
    check.finish()


def check_announced(caller: Caller, length: int | None) -> None:
    """Refuse what is announced as too large before any of it is sent. Raises FileTooLargeError, BadUploadError."""
    if length is not None and length < 0:
        raise BadUploadError("Content-Length must be a number of bytes")
    if length is not None and length > largest_upload(caller):
        raise FileTooLargeError(largest_upload(caller))
