"""Mails as files."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from structlog.testing import LogCapture

from libs.common.settings import Stage
from services.auth.mail import configured_mailer
from services.auth.mail.folder import FolderMailer
from services.auth.mail.texts import verification_mail
from services.auth.ports import Mail, MailRefusedError, MailUnavailableError
from services.auth.settings import AuthSettings
from tests.fakes.auth import ManualClock

LINK = "https://dev.example.com/verify-email?token=" + "x" * 120
SENDER = "DevPocket <no-reply@localhost>"


def a_mail(to: str = "ada@example.com") -> Mail:
    return verification_mail(to, "Zoë", LINK, 24)


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    """What is logged from INFO on."""
    before = structlog.get_config()
    capture = LogCapture()
    wrapper = structlog.make_filtering_bound_logger(logging.INFO)
    structlog.configure(processors=[capture], wrapper_class=wrapper, cache_logger_on_first_use=False)
    yield capture.entries
    structlog.configure(**before)


class TestFile:
    async def test_holds_the_mail_and_is_private(self, tmp_path: Path, clock: ManualClock) -> None:
        folder = tmp_path / "data" / "mails"
        await FolderMailer(folder, SENDER, log_links=False, clock=clock).send(a_mail())
        (path,) = files(folder)
        assert re.fullmatch(r"20261101T120000000Z-ada@example\.com-[0-9a-f]{8}\.eml", path.name)
        assert (path.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
        assert LINK in path.read_text().splitlines()
        message = message_from_bytes(path.read_bytes(), policy=policy.default)
        assert (message["To"], message["From"]) == ("ada@example.com", SENDER)

    async def test_of_a_hostile_address_stays_in_the_folder(self, tmp_path: Path) -> None:
        mailer = FolderMailer(tmp_path / "mails", SENDER, log_links=False)
        await mailer.send(a_mail("/etc/$x{}@example.com"))
        await mailer.send(a_mail("ü" * 20 + "@example.com"))
        names = [path.name for path in files(tmp_path / "mails")]
        assert len(names) == 2
        assert all(re.fullmatch(r"[A-Za-z0-9@+_.-]+\.eml", name) for name in names)
        assert [path.name for path in files(tmp_path)] == ["mails"]

    async def test_many_at_the_same_time(self, tmp_path: Path, clock: ManualClock) -> None:
        mailer = FolderMailer(tmp_path, SENDER, log_links=False, clock=clock)
        await asyncio.gather(*(mailer.send(a_mail()) for _ in range(50)))
        names = [path.name for path in files(tmp_path)]
        assert len(names) == 50
        assert not [name for name in names if name.startswith(".")]


class TestBound:
    async def test_keeps_the_newest_and_what_is_not_ours(self, tmp_path: Path, clock: ManualClock) -> None:
        others = {"notes.eml", "20261101-letter.eml"}
        for name in (*others, ".20261001T000000000Z-left-by-a-crash.eml"):
            (tmp_path / name).touch()
        mailer = FolderMailer(tmp_path, SENDER, log_links=False, clock=clock, keep=3)
        for number in range(5):
            clock.advance(seconds=1)
            await mailer.send(a_mail(f"user-{number}@example.com"))
        left = {path.name for path in files(tmp_path)}
        assert others < left
        assert sorted(re.findall(r"user-\d", " ".join(left))) == ["user-2", "user-3", "user-4"]
        assert len(left) == 5


class TestFailure:
    async def test_no_folder_can_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(MailUnavailableError):
            await FolderMailer(tmp_path / "file" / "mails", SENDER, log_links=False).send(a_mail())

    async def test_no_address(self, tmp_path: Path) -> None:
        with pytest.raises(MailRefusedError):
            await FolderMailer(tmp_path, SENDER, log_links=False).send(a_mail("ada@example.com\nBcc: eve@example.com"))
        assert files(tmp_path) == []


class TestLog:
    @pytest.mark.parametrize("shown", [True, False])
    async def test_shows_links_only_when_told_to(self, tmp_path: Path, logs: list[Any], shown: bool) -> None:
        await FolderMailer(tmp_path, SENDER, log_links=shown).send(a_mail())
        (path,) = files(tmp_path)
        expected = {"event": "mail written", "log_level": "info", "path": str(path), "recipient": "ada@example.com"}
        assert logs == [{**expected, "link": LINK} if shown else expected]

    @pytest.mark.parametrize("stage", Stage)
    async def test_shows_links_in_development(self, tmp_path: Path, logs: list[Any], stage: Stage) -> None:
        values: dict[str, Any] = {"_env_file": None, "environment": stage, "mail_folder": tmp_path, "smtp_url": None}
        mailer = configured_mailer(AuthSettings(**values, secret_key=SecretStr("k" * 48)))
        assert mailer is not None
        await mailer.send(a_mail())
        assert [LINK in str(line) for line in logs] == [stage is Stage.DEVELOPMENT]
