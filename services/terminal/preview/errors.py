"""What can be wrong with the application behind a preview; `status` is what the browser gets."""

from __future__ import annotations

from libs.common.errors import DevPocketError, ErrorKind


class ApplicationError(DevPocketError):
    """Base. Not our failure, and not the caller's."""

    kind = ErrorKind.UNAVAILABLE
    status = 502


class NothingListensError(ApplicationError):
    """No program at this port."""

    code = "nothing_listens"

    def __init__(self, port: int) -> None:
        super().__init__(
            f"Nothing listens at port {port} of this environment. Start your application there, on 127.0.0.1 or "
            "0.0.0.0, and load this page again"
        )


class BadAnswerError(ApplicationError):
    """Something listens, and speaks no HTTP that makes sense."""

    code = "bad_answer"

    def __init__(self, port: int) -> None:
        super().__init__(f"What listens at port {port} gave no complete answer in HTTP; it may have crashed")


class NoAnswerError(ApplicationError):
    """It took the request and is silent."""

    code = "no_answer"
    status = 504

    def __init__(self, port: int, seconds: float) -> None:
        super().__init__(f"The application at port {port} did not begin to answer within {seconds:g} s")


class BadRequestLineError(DevPocketError):
    """The request cannot be passed on in HTTP/1.1."""

    code = "bad_request"

    def __init__(self) -> None:
        super().__init__("This request cannot be passed on to the application")
