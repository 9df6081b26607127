"""Routes that ask who is calling before they look at what was sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response


class _Malformed:
    """Fits no model, so that a body that is no JSON is refused where bodies of the wrong shape are."""


class _PatientRequest(Request):
    """Remembers that its body is no JSON instead of saying so at once."""

    malformed: RequestValidationError | None = None

    async def json(self) -> Any:
        """The parsed body, or what no model accepts."""
        try:
            return await super().json()
        except (ValueError, RecursionError) as error:
            place = error.pos if isinstance(error, json.JSONDecodeError) else 0
            problem = {"type": "json_invalid", "loc": ("body", place), "msg": "JSON decode error", "input": {}}
            self.malformed = RequestValidationError([problem])
            return _Malformed()


class CallerFirstRoute(APIRoute):
    """FastAPI parses a JSON body before it solves dependencies: nobody would be told what is wrong with their JSON.

    Pass it to every router as `route_class`.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See APIRoute."""
        handle = super().get_route_handler()

        async def handle_patiently(request: Request) -> Response:
            patient = _PatientRequest(request.scope, request.receive)
            try:
                return await handle(patient)
            except RequestValidationError as error:
                raise patient.malformed or error from error

        return handle_patiently
