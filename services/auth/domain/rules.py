"""What names and passwords must look like. Pure."""

from __future__ import annotations

import re

MIN_PASSWORD_CHARS = 8
MAX_PASSWORD_CHARS = 100
_USERNAME = re.compile(r"[A-Za-z0-9_-]{3,30}")


def check_username(username: str) -> str:
    """The name itself. Raises ValueError."""
    if not _USERNAME.fullmatch(username):
        raise ValueError("Username must be 3-30 characters: letters, digits, hyphens and underscores")
    return username


def check_password(password: str) -> str:
    """The password itself. Raises ValueError with the first rule it breaks (DESIGN section 8)."""
    if len(password) < MIN_PASSWORD_CHARS:
        raise ValueError(f"Password must be at least {MIN_PASSWORD_CHARS} characters long")
    if len(password) > MAX_PASSWORD_CHARS:
        raise ValueError(f"Password must be at most {MAX_PASSWORD_CHARS} characters long")
    if not any(char.islower() for char in password):
        raise ValueError("Password must contain at least one lowercase letter")
    if not any(char.isupper() for char in password):
        raise ValueError("Password must contain at least one uppercase letter")
    if not any(char.isdigit() for char in password):
        raise ValueError("Password must contain at least one digit")
    return password


def username_from(email: str) -> str:
    """A valid user name made from an address, for people who come from Google."""
    base = re.sub(r"[^A-Za-z0-9_-]+", "-", email.partition("@")[0]).strip("-")[:20]
    return base if len(base) >= 3 else f"user-{base}".strip("-")
