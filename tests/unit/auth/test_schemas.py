"""What the API lets in."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.auth.errors import InvalidGoogleTokenError
from services.auth.google import identity_of
from services.auth.schemas.fields import check_email
from services.auth.schemas.sign_in import RegisterIn


class TestEmail:
    @pytest.mark.parametrize(
        ("text", "kept"),
        [
            ("Ada@Example.COM", "Ada@example.com"),
            (" ada@example.com ", "ada@example.com"),
            ("ada+x@mail.example.org", "ada+x@mail.example.org"),
            ("boss@company.local", "boss@company.local"),
        ],
    )
    def test_accepts(self, text: str, kept: str) -> None:
        assert check_email(text) == kept

    @pytest.mark.parametrize(
        "text", ["", "ada", "ada@", "@example.com", "a@b", "a b@example.com", "x" * 300 + "@e.com"]
    )
    def test_refuses(self, text: str) -> None:
        with pytest.raises(ValueError, match="Not a valid email address"):
            check_email(text)


class TestRegisterIn:
    def test_never_shows_the_password(self) -> None:
        body = RegisterIn(username="ada", email="ada@example.com", password="Correct-Horse-1")
        assert "Correct" not in repr(body)

    def test_names_the_broken_rule(self) -> None:
        with pytest.raises(ValidationError, match="Password must contain at least one digit"):
            RegisterIn(username="ada", email="ada@example.com", password="Correct-Horse")


class TestGoogleIdentity:
    def test_reads_the_claims(self) -> None:
        identity = identity_of({"sub": "1", "email": "a@example.com", "email_verified": True, "name": "A"})
        assert (identity.subject, identity.email_verified, identity.name, identity.picture) == ("1", True, "A", None)

    @pytest.mark.parametrize("verified", [None, False, "true", 1])
    def test_only_true_is_verified(self, verified: object) -> None:
        claims = {"sub": "1", "email": "a@example.com", "email_verified": verified}
        assert not identity_of(claims).email_verified

    def test_needs_an_address(self) -> None:
        with pytest.raises(InvalidGoogleTokenError):
            identity_of({"sub": "1"})
