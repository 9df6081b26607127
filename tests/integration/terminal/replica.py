"""A replica as a process of its own: `python -m libs.common.http.server tests.integration.terminal.replica:create_app`.

Writes access tokens for the users named in TEST_USERS (with commas between) to TEST_TOKENS_FILE, as JSON by user.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from fastapi import FastAPI

from services.terminal.main import create_app as create_terminal
from services.terminal.settings import TerminalSettings
from tests.fakes.exec_runtime import HostExecRuntime
from tests.support.tokens import TestIssuer


def create_app() -> FastAPI:
    """The service on the host's shells."""
    settings = TerminalSettings(_env_file=None, terminal_hold_shells=False)
    issuer = TestIssuer(settings)
    tokens = {user: issuer.token(user) for user in os.environ["TEST_USERS"].split(",")}
    Path(os.environ["TEST_TOKENS_FILE"]).write_text(json.dumps(tokens))
    return create_terminal(settings, keys=issuer, runtime=HostExecRuntime())
