"""What can go wrong with accounts and sessions. Pure, like the domain that raises it."""

from __future__ import annotations

import math
from datetime import timedelta

from libs.common.errors import DevPocketError, ErrorKind, UnauthenticatedError, UnavailableError


class EmailTakenError(DevPocketError):
    """Another account has this address, in whatever case."""

    code = "email_taken"

    def __init__(self) -> None:
        super().__init__("Email already registered")


class UsernameTakenError(DevPocketError):
    """Another account has this name, in whatever case."""

    code = "username_taken"

    def __init__(self) -> None:
        super().__init__("Username already taken")


class IncorrectCredentialsError(UnauthenticatedError):
    """Unknown user or wrong password; the answer does not say which."""

    code = "incorrect_credentials"

    def __init__(self) -> None:
        super().__init__("Incorrect username/email or password")


class AccountLockedError(UnauthenticatedError):
    """Too many wrong passwords; `left` is how long the lock still holds."""

    code = "account_locked"

    def __init__(self, left: timedelta) -> None:
        minutes = max(math.ceil(left.total_seconds() / 60), 1)
        super().__init__(
            "Account is temporarily locked due to too many failed login attempts. "
            f"Please try again in {minutes} minute{'' if minutes == 1 else 's'}."
        )
        self.headers["Retry-After"] = str(max(math.ceil(left.total_seconds()), 1))


class AccountInactiveError(UnauthenticatedError):
    """An administrator has deactivated the account."""

    code = "account_inactive"

    def __init__(self) -> None:
        super().__init__("This account is deactivated, please contact your administrator")


class InvalidRefreshTokenError(UnauthenticatedError):
    """Unknown, expired, revoked or used before; the answer does not say which."""

    code = "invalid_refresh_token"

    def __init__(self) -> None:
        super().__init__("Refresh token is invalid or has expired, please sign in again")


class InvalidGoogleTokenError(UnauthenticatedError):
    """Not an ID token of Google for this server, or not one that we may link."""

    code = "invalid_google_token"

    def __init__(self, message: str = "Google token is invalid or has expired") -> None:
        super().__init__(message)


class GoogleNotConfiguredError(UnavailableError):
    """GOOGLE_CLIENT_ID is not set."""

    code = "google_not_configured"

    def __init__(self) -> None:
        super().__init__("Google sign-in is not configured on this server, please use a password")


class UserNotFoundError(DevPocketError):
    """No such account."""

    kind = ErrorKind.NOT_FOUND
    code = "user_not_found"

    def __init__(self) -> None:
        super().__init__("User not found")


class OwnAccountError(DevPocketError):
    """Administrators cannot shut themselves out; otherwise the last one could."""

    kind = ErrorKind.CONFLICT
    code = "own_account"

    def __init__(self) -> None:
        super().__init__("You cannot deactivate your own account or give up your own admin plan")
