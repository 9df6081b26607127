"""Writes mails into a folder, for development and for whoever has another program send them."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import threading
from email import policy
from pathlib import Path

import structlog

from libs.common.clock import Clock, utc_now
from services.auth.mail.message import compose, parse_sender
from services.auth.ports import Mail, MailUnavailableError

_KEPT_MAILS = 1_000
_MAX_ADDRESS_CHARS = 100
_UNSAFE = re.compile(r"[^A-Za-z0-9@+_.-]")
# Ours, also those that a crash left half written: they begin with a dot.
_OURS = re.compile(r"\.?\d{8}T\d{9}Z-.*\.eml")
# UTF-8 and plain line ends: people and scripts read these files.
_POLICY = policy.default.clone(utf8=True)

log = structlog.get_logger(__name__)


class FolderMailer:
    """One `<UTC time>-<recipient>-<id>.eml` per mail, readable by this user only; the newest `keep` stay.

    `log_links`: whether the log shows the links, with which anybody who reads it can take over the accounts.
    """

    def __init__(
        self, folder: Path, sender: str, *, log_links: bool, clock: Clock = utc_now, keep: int = _KEPT_MAILS
    ) -> None:
        self._folder = folder
        self._sender = parse_sender(sender)
        self._log_links = log_links
        self._clock = clock
        self._keep = keep
        # Of threads: a caller that is cancelled leaves its thread behind.
        self._writing = threading.Lock()

    async def send(self, mail: Mail) -> None:
        """Returns when the file is there. Raises MailRefusedError, MailUnavailableError."""
        now = self._clock()
        content = compose(mail, self._sender, now).as_bytes(policy=_POLICY)
        recipient = _UNSAFE.sub("_", mail.to)[:_MAX_ADDRESS_CHARS]
        time = f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03}Z"
        path = self._folder / f"{time}-{recipient}-{secrets.token_hex(4)}.eml"
        try:
            await asyncio.to_thread(self._write, path, content)
        except OSError as error:
            log.warning("mail could not be written", path=str(path), error=error.strerror)
            raise MailUnavailableError("The mail could not be written into MAIL_FOLDER") from error
        link = {"link": mail.link} if self._log_links else {}
        log.info("mail written", path=str(path), recipient=mail.to, **link)

    def _write(self, path: Path, content: bytes) -> None:
        with self._writing:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            scratch = path.with_name(f".{path.name}")
            fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(content)
            os.replace(scratch, path)
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        names = [name for name in os.listdir(self._folder) if _OURS.fullmatch(name)]
        names.sort(key=lambda name: name.removeprefix("."), reverse=True)
        for name in names[self._keep :]:
            (self._folder / name).unlink(missing_ok=True)
