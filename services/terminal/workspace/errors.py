"""What can go wrong with files and commands in a workspace. The API gives some of them a status of their own."""

from __future__ import annotations

from libs.common.errors import DevPocketError, ErrorKind, ForbiddenError, UnavailableError

# What a user is told; the driver's own words are an operator's.
_MACHINE_AWAY = "The machine your environment runs on cannot be reached right now, please try again in a moment"
_AWAY = {
    "ClusterUnreachable": "The cluster your environment runs on does not answer right now, please try again later",
    "ClusterRemoved": "The cluster your environment runs on was taken out of service, please ask your operator",
    "ExecFailed": "No process could be started in the environment; stop some of those it has, or restart it",
}


def machine_away(reason: str) -> UnavailableError:
    """For a driver's reason."""
    return UnavailableError(_AWAY.get(reason, _MACHINE_AWAY))


class BadPathError(DevPocketError):
    """A path that names nothing below /workspace."""

    kind = ErrorKind.UNPROCESSABLE
    code = "bad_path"


class InvalidCursorError(DevPocketError):
    """A cursor that no page has given out."""

    kind = ErrorKind.UNPROCESSABLE
    code = "invalid_cursor"

    def __init__(self) -> None:
        super().__init__("The cursor is none that a page before this one has given out")


class PathOutsideError(ForbiddenError):
    """A link on the way leads out of the workspace."""

    code = "path_outside_workspace"

    def __init__(self) -> None:
        super().__init__("This path leads out of /workspace, where nothing can be read or written this way")


class PathDeniedError(ForbiddenError):
    """The workspace's user has no right to it."""

    code = "path_denied"

    def __init__(self) -> None:
        super().__init__("The permissions in the workspace do not allow this")


class FileMissingError(DevPocketError):
    """Nothing is at this path."""

    kind = ErrorKind.NOT_FOUND
    code = "file_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such file or directory in the workspace")


class IsDirectoryError(DevPocketError):
    """A file was meant."""

    kind = ErrorKind.CONFLICT
    code = "is_a_directory"

    def __init__(self) -> None:
        super().__init__("There is a directory at this path, or at one that the archive has as a file")


class NotDirectoryError(DevPocketError):
    """A directory was meant, here or on the way."""

    kind = ErrorKind.CONFLICT
    code = "not_a_directory"

    def __init__(self) -> None:
        super().__init__("Something on this path, or at one that the archive has as a directory, is no directory")


class DirectoryNotEmptyError(DevPocketError):
    """Deleting it would delete what is in it."""

    kind = ErrorKind.CONFLICT
    code = "directory_not_empty"

    def __init__(self) -> None:
        super().__init__("The directory is not empty; with recursive=true it is deleted with all that is in it")


class SpecialFileError(DevPocketError):
    """A socket, a pipe or a device."""

    kind = ErrorKind.CONFLICT
    code = "not_a_regular_file"

    def __init__(self) -> None:
        super().__init__("This is no regular file, so it has no content to read or to replace")


class FileChangedError(DevPocketError):
    """If-Match or If-None-Match do not hold."""

    kind = ErrorKind.CONFLICT
    code = "precondition_failed"

    def __init__(self) -> None:
        super().__init__("The file is not as If-Match or If-None-Match want it, so nothing was changed")


class RangeError(DevPocketError):
    """A range that begins after the end."""

    kind = ErrorKind.BAD_REQUEST
    code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"The file has {size} bytes", headers={"Content-Range": f"bytes */{size}"})


class FileTooLargeError(DevPocketError):
    """Larger than the caller's plan allows."""

    kind = ErrorKind.FORBIDDEN
    code = "file_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"Your plan allows uploads of at most {limit // (1024 * 1024)} MiB, archives also once they are unpacked"
        )


class DiskFullError(DevPocketError):
    """No room in the workspace."""

    kind = ErrorKind.CONFLICT
    code = "workspace_full"

    def __init__(self) -> None:
        super().__init__("The workspace has no room for this, please delete something first")


class BadArchiveError(DevPocketError):
    """An upload that is no archive, or one that must not be unpacked."""

    kind = ErrorKind.UNPROCESSABLE
    code = "bad_archive"


class BadUploadError(DevPocketError):
    """A body that cannot be stored as it is."""

    kind = ErrorKind.BAD_REQUEST
    code = "bad_upload"


class CommandRejectedError(DevPocketError):
    """The workspace cannot start it as it was asked to."""

    kind = ErrorKind.UNPROCESSABLE
    code = "command_rejected"


class TooManyAtOnceError(DevPocketError):
    """The user has as many of these under way as allowed. `what` in plural."""

    kind = ErrorKind.TOO_MANY
    code = "too_many_at_once"

    def __init__(self, limit: int, what: str) -> None:
        super().__init__(
            f"You have {limit} {what} under way, which is the limit; wait until one has ended",
            headers={"Retry-After": "1"},
        )


class CutShortError(UnavailableError):
    """The workspace has ended in the middle, or said nothing that makes sense."""

    code = "workspace_went_away"

    def __init__(self) -> None:
        super().__init__("The workspace gave no complete answer; it may have stopped, please try again")


REFUSALS: dict[str, type[DevPocketError]] = {
    "missing": FileMissingError,
    "outside": PathOutsideError,
    "denied": PathDeniedError,
    "isdir": IsDirectoryError,
    "notdir": NotDirectoryError,
    "notempty": DirectoryNotEmptyError,
    "special": SpecialFileError,
    "changed": FileChangedError,
    "full": DiskFullError,
}
"""By the word that the scripts refuse with."""


def refusal(word: str) -> DevPocketError:
    """The error for what a script has refused with."""
    if word == "toolong":
        return BadPathError("A name on this path is too long for the workspace")
    if word == "archive":
        return BadArchiveError("The archive could not be unpacked in the workspace")
    kind = REFUSALS.get(word)
    return CutShortError() if kind is None else kind()  # type: ignore[call-arg]  # none of these takes a message
