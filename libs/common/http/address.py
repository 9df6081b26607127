"""Where a request comes from."""

from __future__ import annotations

from starlette.types import Scope


def client_address(scope: Scope) -> str:
    """The client's address, as uvicorn took it from a trusted gateway's X-Forwarded-For."""
    client = scope.get("client")
    return client[0] if client else "unknown"
