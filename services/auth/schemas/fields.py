"""Fields of requests: what an address, a name and a new password must look like."""

from __future__ import annotations

from typing import Annotated

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email
from pydantic import AfterValidator, Field, WithJsonSchema

from services.auth.domain.rules import MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS, check_password, check_username

# Self-hosted servers have users at names like these; the library offers this list for changing.
SPECIAL_USE_DOMAIN_NAMES[:] = [name for name in SPECIAL_USE_DOMAIN_NAMES if name not in {"local", "test"}]


def check_email(text: str) -> str:
    """The address with its domain in lower case. Raises ValueError."""
    try:
        return validate_email(text.strip(), check_deliverability=False).normalized
    except EmailNotValidError as error:
        raise ValueError(f"Not a valid email address: {error}") from error


Email = Annotated[str, AfterValidator(check_email), WithJsonSchema({"type": "string", "format": "email"})]
Username = Annotated[
    str,
    AfterValidator(check_username),
    WithJsonSchema({"type": "string", "minLength": 3, "maxLength": 30, "pattern": "^[A-Za-z0-9_-]+$"}),
]
NewPassword = Annotated[
    str,
    # Half a surrogate pair is refused only where a text is constrained, and cannot be hashed.
    Field(max_length=1024),
    AfterValidator(check_password),
    WithJsonSchema(
        {
            "type": "string",
            "format": "password",
            "minLength": MIN_PASSWORD_CHARS,
            "maxLength": MAX_PASSWORD_CHARS,
            "description": "At least one lowercase letter, one uppercase letter and one digit",
        }
    ),
]
Password = Annotated[str, Field(min_length=1, max_length=1024)]
"""One that is checked, not made."""
DeviceName = Annotated[str | None, Field(max_length=100, examples=["Ada's phone"])]
"""What the session is listed by; else what the client calls itself."""
