"""Mails over SMTP, to a real server in a thread."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from services.auth.mail import smtp as driver
from services.auth.mail.smtp import SmtpMailer
from services.auth.mail.smtp_url import Encryption, SmtpServer
from services.auth.mail.texts import verification_mail
from services.auth.ports import Mail, MailRefusedError, MailUnavailableError
from tests.support.servers import free_port

LOOPBACK = "127.0.0.1"
SENDER = "DevPocket <no-reply@example.com>"
LINK = "https://dev.example.com/verify-email?token=" + "x" * 120
PASSWORD = "p/:%ü geheim"

StartServer = Callable[..., SmtpServer]


def a_mail(to: str = "ada@example.com", name: str = "Ada") -> Mail:
    return verification_mail(to, name, LINK, 24)


class Inbox:
    """A server's answers, and what it has got."""

    def __init__(self) -> None:
        self.mails: list[Envelope] = []
        self.encrypted: list[bool] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.to_sender = self.to_recipient = self.to_data = "250 OK"
        self.to_farewell = "221 Bye"

    async def handle_MAIL(self, _server: Any, _session: Any, envelope: Envelope, address: str, _options: Any) -> str:
        envelope.mail_from = address
        return self.to_sender

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Envelope, address: str, _options: Any) -> str:
        if self.to_recipient.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.to_recipient

    async def handle_DATA(self, _server: Any, session: Session, envelope: Envelope) -> str:
        if self.to_data.startswith("250"):
            self.mails.append(envelope)
            self.encrypted.append(session.ssl is not None)
        return self.to_data

    async def handle_QUIT(self, *_: Any) -> str:
        return self.to_farewell

    def authenticate(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def start(inbox: Inbox) -> Iterator[StartServer]:
    """`start(**parameters of aiosmtpd)` runs a server that delivers to `inbox`."""
    with ExitStack() as exits:

        def run(**parameters: Any) -> SmtpServer:
            controller = Controller(inbox, hostname=LOOPBACK, port=free_port(), server_hostname="mail", **parameters)
            controller.start()
            exits.callback(controller.stop)
            return SmtpServer.of(f"smtp://{LOOPBACK}:{controller.port}")

        yield run


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    """What is logged; a logger keeps the setup of its first use, which may have been another test's."""
    vars(driver.log).pop("bind", None)
    with capture_logs() as entries:
        yield entries


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and its self-signed certificate for 127.0.0.1, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "mail.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + signed.public_bytes(pem))
    return path


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusting(certificate: Path) -> ssl.SSLContext:
    """Knows the server's certificate."""
    return ssl.create_default_context(cafile=certificate)


class TestAccepted:
    async def test_arrives_whole_at_one_recipient(self, start: StartServer, inbox: Inbox) -> None:
        mail = a_mail(name="Zoë")
        await SmtpMailer(start(), SENDER).send(mail)
        (got,) = inbox.mails
        assert (got.mail_from, got.rcpt_tos) == ("no-reply@example.com", ["ada@example.com"])
        assert isinstance(got.content, bytes)
        assert LINK.encode() in got.content.splitlines()
        message = message_from_bytes(got.content, policy=policy.default)
        assert (message["From"], message["To"], message["Subject"]) == (SENDER, mail.to, mail.subject)
        assert message.get_content() == mail.text.replace("\n", "\r\n")

    async def test_a_bad_farewell_does_not_have_it_sent_again(self, start: StartServer, inbox: Inbox) -> None:
        inbox.to_farewell = "554 No"
        await SmtpMailer(start(), SENDER).send(a_mail())
        assert len(inbox.mails) == 1

    async def test_text_ends_where_it_ends(self, start: StartServer, inbox: Inbox) -> None:
        text = "one\n.\nMAIL FROM:<eve@example.com>\n..\ntwo\n"
        await SmtpMailer(start(), SENDER).send(replace(a_mail(), text=text))
        (got,) = inbox.mails
        assert isinstance(got.content, bytes)
        assert got.content.replace(b"\r\n", b"\n").endswith(f"\n\n{text}".encode())

    async def test_international_addresses(self, start: StartServer, inbox: Inbox) -> None:
        mailer = SmtpMailer(start(), SENDER)
        await mailer.send(a_mail("ada@straße.de"))
        await mailer.send(a_mail("zoë@example.com"))
        assert [got.rcpt_tos for got in inbox.mails] == [["ada@xn--strae-oqa.de"], ["zoë@example.com"]]

    async def test_a_server_that_knows_ascii_only(self, start: StartServer, inbox: Inbox) -> None:
        mailer = SmtpMailer(start(enable_SMTPUTF8=False), SENDER)
        await mailer.send(a_mail("ada@straße.de"))
        with pytest.raises(MailRefusedError):
            await mailer.send(a_mail("zoë@example.com"))
        assert [got.rcpt_tos for got in inbox.mails] == [["ada@xn--strae-oqa.de"]]


class TestInjection:
    @pytest.mark.parametrize(
        "to", ["ada@example.com\r\nRCPT TO:<eve@example.com>", "ada@example.com> <eve@example.com"]
    )
    async def test_by_the_recipient(self, start: StartServer, inbox: Inbox, to: str) -> None:
        with pytest.raises(MailRefusedError):
            await SmtpMailer(start(), SENDER).send(a_mail(to))
        assert inbox.mails == []

    async def test_by_the_subject(self, start: StartServer, inbox: Inbox) -> None:
        await SmtpMailer(start(), SENDER).send(replace(a_mail(), subject="Hi\r\nBcc: eve@example.com\r\n\r\nBody"))
        (got,) = inbox.mails
        assert got.rcpt_tos == ["ada@example.com"]
        assert isinstance(got.content, bytes)
        message = message_from_bytes(got.content, policy=policy.default)
        assert (message["Bcc"], message["Subject"]) == (None, "Hi Bcc: eve@example.com Body")


class TestRefused:
    @pytest.mark.parametrize(
        ("answers", "error"),
        [
            ({"to_recipient": "550 5.1.1 <ada@example.com> unknown"}, MailRefusedError),
            ({"to_recipient": "451 4.7.1 Greylisted, try again"}, MailUnavailableError),
            ({"to_recipient": "530 5.7.0 Authentication required"}, MailUnavailableError),
            ({"to_data": "554 5.7.1 Not wanted"}, MailRefusedError),
            ({"to_data": "452 4.3.1 Disk full"}, MailUnavailableError),
            ({"to_sender": "553 5.7.1 Not your address"}, MailUnavailableError),
            ({"to_sender": "421 4.3.2 Closing"}, MailUnavailableError),
        ],
    )
    async def test_for_good_or_for_now(
        self, start: StartServer, inbox: Inbox, logs: list[Any], answers: dict[str, str], error: type[Exception]
    ) -> None:
        vars(inbox).update(answers)
        with pytest.raises(error):
            await SmtpMailer(start(), SENDER).send(a_mail())
        assert inbox.mails == []
        (line,) = logs
        (answer,) = answers.values()
        assert answer[:3] in str(line)
        assert "ada@example.com" not in str(line)
        assert LINK not in str(line)


class TestCredentials:
    @pytest.fixture
    def server(self, start: StartServer, inbox: Inbox) -> SmtpServer:
        """Wants a login, and takes it without TLS: it is on this machine."""
        return start(auth_required=True, auth_require_tls=False, authenticator=inbox.authenticate)

    async def test_as_the_url_has_them(self, server: SmtpServer, inbox: Inbox) -> None:
        url = f"smtp://ada%40example.com:p%2F%3A%25%C3%BC%20geheim@{LOOPBACK}:{server.port}"
        await SmtpMailer(SmtpServer.of(url), SENDER).send(a_mail())
        assert inbox.logins == [(b"ada@example.com", PASSWORD.encode())]
        assert len(inbox.mails) == 1

    async def test_wrong_ones_are_the_operators_business(
        self, server: SmtpServer, inbox: Inbox, logs: list[Any]
    ) -> None:
        with pytest.raises(MailUnavailableError) as caught:
            await SmtpMailer(replace(server, username="ada", password="falsch"), SENDER).send(a_mail())
        assert inbox.logins
        (line,) = logs
        assert (line["log_level"], line["host"], line["code"]) == ("error", LOOPBACK, 535)
        assert "SMTP_URL" in line["event"]
        assert "falsch" not in f"{line}{caught.value!r}"

    async def test_none_where_some_are_wanted(self, server: SmtpServer, inbox: Inbox) -> None:
        with pytest.raises(MailUnavailableError):
            await SmtpMailer(server, SENDER).send(a_mail())
        assert inbox.mails == []


class TestEncryption:
    async def test_is_used_where_it_is_offered_whoever_signed_the_certificate(
        self, start: StartServer, inbox: Inbox, server_tls: ssl.SSLContext
    ) -> None:
        await SmtpMailer(start(tls_context=server_tls), SENDER).send(a_mail())
        assert inbox.encrypted == [True]

    async def test_credentials_go_to_who_proves_to_be_the_server(
        self, start: StartServer, inbox: Inbox, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
    ) -> None:
        server = start(tls_context=server_tls, authenticator=inbox.authenticate)
        server = replace(server, encryption=Encryption.REQUIRED, username="ada", password=PASSWORD)
        with pytest.raises(MailUnavailableError):
            await SmtpMailer(server, SENDER).send(a_mail())
        assert inbox.logins == []
        await SmtpMailer(server, SENDER, tls=trusting).send(a_mail())
        assert (len(inbox.logins), inbox.encrypted) == (1, [True])

    async def test_without_starttls_no_credentials_leave(self, start: StartServer, inbox: Inbox) -> None:
        server = start(auth_require_tls=False, authenticator=inbox.authenticate)
        server = replace(server, encryption=Encryption.REQUIRED, username="ada", password=PASSWORD)
        with pytest.raises(MailUnavailableError):
            await SmtpMailer(server, SENDER).send(a_mail())
        assert (inbox.logins, inbox.mails) == ([], [])

    async def test_from_the_first_byte(
        self, start: StartServer, inbox: Inbox, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
    ) -> None:
        port = start(ssl_context=server_tls).port
        server = SmtpServer.of(f"smtps://{LOOPBACK}:{port}")
        with pytest.raises(MailUnavailableError):
            await SmtpMailer(server, SENDER).send(a_mail())
        await SmtpMailer(server, SENDER, tls=trusting).send(a_mail())
        assert len(inbox.mails) == 1


class TestUnreachable:
    async def test_nobody_listens(self, logs: list[Any]) -> None:
        with pytest.raises(MailUnavailableError):
            await SmtpMailer(SmtpServer.of(f"smtp://{LOOPBACK}:{free_port()}"), SENDER).send(a_mail())
        assert [line["event"] for line in logs] == ["mail could not be handed over"]

    async def test_somebody_who_says_nothing(self) -> None:
        with socket.create_server((LOOPBACK, 0)) as silent:
            server = SmtpServer.of(f"smtp://{LOOPBACK}:{silent.getsockname()[1]}")
            with pytest.raises(MailUnavailableError):
                await SmtpMailer(server, SENDER, timeout_s=0.2).send(a_mail())

    async def test_no_such_host(self) -> None:
        with pytest.raises(MailUnavailableError):
            await SmtpMailer(SmtpServer.of("smtp://mail.invalid"), SENDER, timeout_s=5).send(a_mail())
