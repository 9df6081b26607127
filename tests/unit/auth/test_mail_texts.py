"""What the mails say."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.auth.mail.texts import mail_with_link, reset_mail, verification_mail

LINK = "https://dev.example.com/verify-email?token=abc"


class TestVerification:
    def test_has_the_link_on_a_line_of_its_own_and_says_how_long_it_is_good_for(self) -> None:
        mail = verification_mail("ada@example.com", "Ada", LINK, 24)
        assert (mail.to, mail.link) == ("ada@example.com", LINK)
        assert LINK in mail.text.splitlines()
        assert mail.text.startswith("Hello Ada,\n")
        assert "good for 24 hours" in mail.text
        assert "did not create" in mail.text

    def test_one_hour(self) -> None:
        assert "good for 1 hour." in verification_mail("ada@example.com", None, LINK, 1).text


class TestReset:
    @pytest.mark.parametrize(
        ("minutes", "duration"), [(60, "1 hour"), (120, "2 hours"), (30, "30 minutes"), (90, "90 minutes")]
    )
    def test_has_the_link_and_says_how_long_it_is_good_for(self, minutes: int, duration: str) -> None:
        mail = reset_mail("ada@example.com", None, LINK, minutes)
        assert (mail.to, mail.link) == ("ada@example.com", LINK)
        assert LINK in mail.text.splitlines()
        assert f"good for {duration} and works once" in mail.text
        assert "did not ask for it" in mail.text


class TestMailWithLink:
    def test_is_the_one_for_the_purpose(self) -> None:
        to, name = "ada@example.com", "Ada"
        verification = mail_with_link("verify_email", to, name, LINK, timedelta(hours=24))
        assert verification == verification_mail(to, name, LINK, 24)
        assert mail_with_link("reset_password", to, name, LINK, timedelta(minutes=90)) == reset_mail(to, name, LINK, 90)


class TestName:
    @pytest.mark.parametrize("name", ["Ada Lovelace", "Zoë", "J. R. R. Tolkien", "李小龙", "O'Neill-Smith"])
    def test_greets(self, name: str) -> None:
        assert verification_mail("ada@example.com", name, LINK, 24).text.startswith(f"Hello {name},\n")

    @pytest.mark.parametrize(
        "name",
        [
            None,
            "",
            "  ",
            "You won! http://evil.example",
            "evil.example",
            "mail me at eve@evil",
            "a\u202eb",
            "a\x00b",
            "x" * 61,
        ],
    )
    def test_carries_no_message_to_a_stranger(self, name: str | None) -> None:
        for mail in (verification_mail("a@example.com", name, LINK, 24), reset_mail("a@example.com", name, LINK, 60)):
            assert mail.text.startswith("Hello,\n")

    def test_is_one_line(self) -> None:
        assert verification_mail("a@example.com", "Ada\r\n\r\nPay", LINK, 24).text.startswith("Hello Ada Pay,\n")

    def test_links_show_in_no_log(self) -> None:
        assert LINK not in repr(reset_mail("ada@example.com", None, LINK, 60))
