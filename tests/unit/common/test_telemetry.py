"""Logs: what may be in them."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from libs.common.settings import CommonSettings
from libs.common.telemetry import configure_telemetry


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Logging belongs to the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_where_and_not_what_variables_held(log_format: Literal["json", "console"]) -> None:
    stream = io.StringIO()
    configure_telemetry("test", CommonSettings(_env_file=None, log_format=log_format), stream=stream)
    authorization = " ".join(["Bearer", "of-somebody"])
    try:
        raise LookupError(f"{len(authorization)} characters")
    except LookupError:
        structlog.get_logger("test").exception("failed")
    assert "LookupError" in stream.getvalue()
    assert "test_a_traceback_shows_where" in stream.getvalue()
    assert "Bearer of-somebody" not in stream.getvalue()
