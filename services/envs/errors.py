"""What can go wrong with an environment or a template, with the API's messages. Pure."""

from __future__ import annotations

from libs.common.errors import DevPocketError, ErrorKind, ForbiddenError


class EnvironmentNotFoundError(DevPocketError):
    """There is none with this id, or it belongs to somebody else: the answer is the same."""

    kind = ErrorKind.NOT_FOUND
    code = "environment_not_found"

    def __init__(self) -> None:
        super().__init__("Environment not found")


class TransitionForbiddenError(DevPocketError):
    """The transition table does not allow it now."""

    kind = ErrorKind.CONFLICT
    code = "transition_forbidden"


class EditConflictError(DevPocketError):
    """Too many writers at once; the same request will work in a moment."""

    kind = ErrorKind.CONFLICT
    code = "edit_conflict"

    def __init__(self) -> None:
        super().__init__("The environment was changed by somebody else at the same time, please try again")


class DuplicateNameError(DevPocketError):
    """The owner has another live environment of this name."""

    kind = ErrorKind.BAD_REQUEST
    code = "duplicate_name"

    def __init__(self) -> None:
        super().__init__("Environment name already exists")


class QuotaExceededError(ForbiddenError):
    """The plan allows no further environment."""

    code = "quota_exceeded"


class ResourcesExceedPlanError(ForbiddenError):
    """More CPU, memory or storage than the plan allows."""

    code = "resource_limit_exceeded"


class EmailNotVerifiedError(ForbiddenError):
    """REQUIRE_EMAIL_VERIFICATION is on and the address is not verified."""

    code = "email_not_verified"

    def __init__(self) -> None:
        super().__init__("Please verify your email address before you create an environment")


class AccountInactiveError(ForbiddenError):
    """The account was deactivated."""

    code = "account_inactive"

    def __init__(self) -> None:
        super().__init__("This account is deactivated; please contact your administrator")


class UnknownTemplateError(DevPocketError):
    """No template of this name can be used."""

    kind = ErrorKind.UNPROCESSABLE
    code = "unknown_template"


class UnknownRegionError(DevPocketError):
    """No cluster is in this region."""

    kind = ErrorKind.UNPROCESSABLE
    code = "unknown_region"
    field = "body.region"

    def __init__(self, region: str, known: list[str]) -> None:
        super().__init__(f"Unknown region '{region}'; there are: {', '.join(known)}")


class InvalidCursorError(DevPocketError):
    """The cursor was not made by this API."""

    kind = ErrorKind.UNPROCESSABLE
    code = "invalid_cursor"

    def __init__(self) -> None:
        super().__init__("The cursor is not valid; use the one from the answer before, unchanged")


class TemplateNotFoundError(DevPocketError):
    """No template of this name."""

    kind = ErrorKind.NOT_FOUND
    code = "template_not_found"

    def __init__(self) -> None:
        super().__init__("Template not found")


class TemplateExistsError(DevPocketError):
    """Another template has this name."""

    kind = ErrorKind.BAD_REQUEST
    code = "template_exists"

    def __init__(self, name: str) -> None:
        super().__init__(f"Template '{name}' already exists")


class SettingsNameNoTemplateError(Exception):
    """TEMPLATE_IMAGES or TEMPLATE_PULL_POLICY is about a template that does not exist: the service must not start."""

    def __init__(self, unknown: list[str], known: list[str]) -> None:
        one = len(unknown) == 1
        super().__init__(
            f"TEMPLATE_IMAGES or TEMPLATE_PULL_POLICY names {', '.join(unknown)}, which {'is' if one else 'are'} no "
            f"template; there are: {', '.join(known)}. Correct the name, or add the template first: "
            f"devpocket templates add {unknown[0]} --image IMAGE"
        )


class TooManyStreamsError(DevPocketError):
    """The user has too many live event streams open."""

    kind = ErrorKind.TOO_MANY
    code = "too_many_streams"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"You have {limit} live event streams open already; please close one", headers={"Retry-After": "5"}
        )
