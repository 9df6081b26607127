"""Mails as messages: headers that cannot be injected into, text that arrives as it is."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.mail.message import compose, parse_sender, recipient
from services.auth.ports import Mail, MailRefusedError

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
SENDER = parse_sender("DevPocket <no-reply@example.com>")
LINK = "https://dev.example.com/verify-email?token=" + "x" * 120
HEADERS = {
    *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"),
    *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
}


def a_mail(**changes: str) -> Mail:
    return Mail(**{"to": "ada@example.com", "subject": "Hi", "text": f"Hello,\n\n{LINK}\n", "link": LINK, **changes})


def on_the_wire(mail: Mail) -> EmailMessage:
    """The message as a receiver reads it."""
    raw = compose(mail, SENDER, NOW).as_bytes(policy=policy.SMTP.clone(linesep="\n"))
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


class TestCompose:
    def test_headers(self) -> None:
        message = on_the_wire(a_mail())
        assert set(message.keys()) == HEADERS
        assert message["From"] == "DevPocket <no-reply@example.com>"
        assert message["To"] == "ada@example.com"
        assert message["Date"].datetime == NOW
        assert message["Message-ID"].endswith("@example.com>")
        assert message["Auto-Submitted"] == "auto-generated"
        assert message.get_content_charset() == "utf-8"

    @pytest.mark.parametrize("name", ["Ada", "Zoë"])
    def test_the_link_is_not_cut_up(self, name: str) -> None:
        mail = a_mail(text=f"Hello {name},\n\n{LINK}\n")
        message = compose(mail, SENDER, NOW)
        assert LINK.encode() in message.as_bytes()
        assert message.get_content() == mail.text

    def test_every_message_has_an_id_of_its_own(self) -> None:
        assert compose(a_mail(), SENDER, NOW)["Message-ID"] != compose(a_mail(), SENDER, NOW)["Message-ID"]


class TestInjection:
    @given(st.text(alphabet=st.sampled_from("ab:\r\n\v\f\x00\x1c\x85\u2028\u2029 =?"), max_size=40))
    def test_no_subject_adds_a_header_or_a_line(self, subject: str) -> None:
        message = on_the_wire(a_mail(subject=f"Hi{subject}Bcc: eve@example.com"))
        assert set(message.keys()) == HEADERS
        assert message["Subject"].endswith("Bcc: eve@example.com")
        assert message.get_content() == a_mail().text

    @pytest.mark.parametrize(
        "to",
        [
            "ada@example.com\r\nBcc: eve@example.com",
            "ada@example.com\nBcc: eve@example.com",
            "ada@example.com\r",
            "ada@example.com, eve@example.com",
            "ada@example.com> SIZE=1",
            "Ada <ada@example.com>",
            '"ada\r\n"@example.com',
            "ada@example.com\x00",
            "ada@example.com\u2028Bcc: eve@example.com",
            "ada@[127.0.0.1]",
            "ada@exa_mple.com",
            "ada@ex\u2028ämple.com",
            ".ada@example.com",
            "a..da@example.com",
            "@example.com",
            "ada@",
            "ada",
            "",
        ],
    )
    def test_only_one_plain_address_is_sent_to(self, to: str) -> None:
        with pytest.raises(MailRefusedError):
            compose(a_mail(to=to), SENDER, NOW)


class TestRecipient:
    @pytest.mark.parametrize(
        ("to", "sent_to"),
        [
            ("ada+x@Example.COM", "ada+x@Example.COM"),
            ("boss@company.local", "boss@company.local"),
            ("ada@straße.de", "ada@xn--strae-oqa.de"),
        ],
    )
    def test_the_domain_is_the_one_that_is_meant(self, to: str, sent_to: str) -> None:
        assert recipient(a_mail(to=to)).addr_spec == sent_to


class TestSender:
    @pytest.mark.parametrize(
        ("text", "name", "address"),
        [
            ("DevPocket <no-reply@localhost>", "DevPocket", "no-reply@localhost"),
            ("no-reply@example.com", "", "no-reply@example.com"),
            ("Dev Pocket, Inc <a@b>", None, None),
            ('"Dev Pocket, Inc." <a@example.com>', "Dev Pocket, Inc.", "a@example.com"),
            ("a@example.com\r\nBcc: eve@example.com", None, None),
            ("a@example.com, b@example.com", None, None),
            ("DevPocket", None, None),
            ("", None, None),
        ],
    )
    def test_one_address_with_a_name_or_without(self, text: str, name: str | None, address: str | None) -> None:
        if address is None:
            with pytest.raises(ValueError, match="MAIL_FROM must be one address"):
                parse_sender(text)
        else:
            sender = parse_sender(text)
            assert (sender.display_name, sender.addr_spec) == (name, address)
