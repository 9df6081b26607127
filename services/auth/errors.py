"""What can go wrong with accounts and sessions. Pure, like the domain that raises it."""

from __future__ import annotations

import math
from datetime import timedelta

from libs.common.errors import (
    DevPocketError,
    ErrorKind,
    ForbiddenError,
    UnauthenticatedError,
    UnavailableError,
)


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
    """Administrators cannot shut themselves out by the admin API; otherwise the last one could."""

    kind = ErrorKind.CONFLICT
    code = "own_account"

    def __init__(self) -> None:
        super().__init__("You cannot deactivate or delete your own account here, or give up your own admin plan")


class InvalidLinkError(DevPocketError):
    """The token of a mailed link: unknown, used, expired or outdated; the answer does not say which."""

    code = "invalid_link"
    field = "body.token"

    def __init__(self) -> None:
        super().__init__("This link is not valid any more, please ask for a new one")


class IncorrectPasswordError(ForbiddenError):
    """Who is signed in has to confirm something with the password, and it was wrong."""

    code = "incorrect_password"

    def __init__(self) -> None:
        super().__init__("The password is not correct")


class SignInAgainError(ForbiddenError):
    """An account without a password confirms by having signed in just now."""

    code = "sign_in_again"

    def __init__(self) -> None:
        super().__init__("Please sign in again and repeat this within a few minutes")


class MailNotConfiguredError(UnavailableError):
    """Neither SMTP_URL nor MAIL_FOLDER is set."""

    code = "mail_not_configured"

    def __init__(self) -> None:
        super().__init__("This server cannot send mails, please ask its operator")


class SessionNotFoundError(DevPocketError):
    """No such sign-in of the caller's, or it has ended."""

    kind = ErrorKind.NOT_FOUND
    code = "session_not_found"

    def __init__(self) -> None:
        super().__init__("Session not found")


class ApiKeyNotFoundError(DevPocketError):
    """No such key of the caller's, or it was revoked."""

    kind = ErrorKind.NOT_FOUND
    code = "api_key_not_found"

    def __init__(self) -> None:
        super().__init__("API key not found")


class TooManyApiKeysError(ForbiddenError):
    """As many as a user may have."""

    code = "too_many_api_keys"

    def __init__(self, limit: int) -> None:
        super().__init__(f"You have {limit} API keys, which is the limit; delete one that you do not need")


class ScopeNotAllowedError(ForbiddenError):
    """The scope `admin`, asked for by somebody who is no administrator."""

    code = "scope_not_allowed"

    def __init__(self) -> None:
        super().__init__("Only an administrator can make a key with the scope 'admin'")
