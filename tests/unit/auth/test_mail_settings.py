"""SMTP_URL, MAIL_FOLDER, and which of them wins."""

from __future__ import annotations

from typing import Any

import pytest

from services.auth.mail import configured_mailer
from services.auth.mail.folder import FolderMailer
from services.auth.mail.smtp import SmtpMailer
from services.auth.mail.smtp_url import Encryption, SmtpServer
from services.auth.settings import AuthSettings

IMPLICIT, REQUIRED, OFFERED = Encryption.IMPLICIT, Encryption.REQUIRED, Encryption.OFFERED


class TestSmtpUrl:
    @pytest.mark.parametrize(
        ("url", "server"),
        [
            ("smtp://mail.example.com", SmtpServer("mail.example.com", 25, OFFERED)),
            ("smtp://mail.example.com:2525/", SmtpServer("mail.example.com", 2525, OFFERED)),
            ("smtp://u:p@mail.example.com", SmtpServer("mail.example.com", 587, REQUIRED, "u", "p")),
            ("smtp://u:p@127.0.0.1:1025", SmtpServer("127.0.0.1", 1025, OFFERED, "u", "p")),
            ("smtp://u:p@[::1]:1025", SmtpServer("::1", 1025, OFFERED, "u", "p")),
            ("smtp://u:p@localhost", SmtpServer("localhost", 587, OFFERED, "u", "p")),
            ("smtp://u:p@localhost.example.com", SmtpServer("localhost.example.com", 587, REQUIRED, "u", "p")),
            ("smtp://u:p@10.0.0.1", SmtpServer("10.0.0.1", 587, REQUIRED, "u", "p")),
            ("smtps://mail.example.com", SmtpServer("mail.example.com", 465, IMPLICIT)),
            ("smtps://u:p@localhost", SmtpServer("localhost", 465, IMPLICIT, "u", "p")),
            (
                "smtp://ada%40example.com:p%2F%3A%25%C3%BC@mail.example.com",
                SmtpServer("mail.example.com", 587, REQUIRED, "ada@example.com", "p/:%ü"),
            ),
        ],
    )
    def test_says_where_and_how(self, url: str, server: SmtpServer) -> None:
        assert SmtpServer.of(url) == server

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "mail.example.com:25",
            "http://u:geheim@mail.example.com",
            "smtp://",
            "smtp://u:geheim@",
            "smtp://u@mail.example.com",
            "smtp://:geheim@mail.example.com",
            "smtp://u:geheim/x@mail.example.com",
            "smtp://u:geheim#x@mail.example.com",
            "smtp://u:geheim%FF@mail.example.com",
            "smtp://u:geheim[@mail.example.com",
            "smtp://u:geheim@mail.example.com:port",
            "smtp://u:geheim@mail.example.com:0",
            "smtp://u:geheim@mail.example.com:70000",
            "smtp://u:geheim@mail.example.com/path",
            "smtp://u:geheim@mail..example.com",
        ],
    )
    def test_refuses_without_showing_the_password(self, url: str) -> None:
        with pytest.raises(ValueError, match="SMTP_URL must look like") as caught:
            SmtpServer.of(url)
        assert caught.value.__suppress_context__
        assert "geheim" not in str(caught.value)

    def test_never_shows_the_password(self) -> None:
        assert "geheim" not in repr(SmtpServer.of("smtp://u:geheim@mail.example.com"))


class TestConfiguredMailer:
    @pytest.mark.parametrize(
        ("smtp_url", "folder", "kind"),
        [
            (None, None, type(None)),
            ("", "", type(None)),
            (None, "mails", FolderMailer),
            ("smtp://mail.example.com", None, SmtpMailer),
            ("smtp://mail.example.com", "mails", SmtpMailer),
        ],
    )
    def test_smtp_wins(self, smtp_url: str | None, folder: str | None, kind: type) -> None:
        values: dict[str, Any] = {"_env_file": None, "smtp_url": smtp_url, "mail_folder": folder}
        settings = AuthSettings(**values)
        assert type(configured_mailer(settings)) is kind

    @pytest.mark.parametrize("changes", [{"smtp_url": "smtp://"}, {"mail_from": "nobody"}])
    def test_bad_settings_are_found_at_start_up(self, changes: dict[str, str]) -> None:
        values: dict[str, Any] = {"_env_file": None, "smtp_url": "smtp://mail.example.com", **changes}
        settings = AuthSettings(**values)
        with pytest.raises(ValueError, match=r"SMTP_URL|MAIL_FROM"):
            configured_mailer(settings)
