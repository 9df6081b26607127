"""Errors of this service that name the field they are about, as those of the request's form do."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from libs.common.http.problems import STATUS_OF, FieldProblem, problem_response, request_id_of
from services.envs.errors import UnknownRegionError


def add_field_problem_handlers(app: FastAPI) -> None:
    """Say in `errors[]` which field was refused."""

    async def on_unknown_region(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, UnknownRegionError)
        refused = FieldProblem(field="body.region", message=error.message, type=error.code)
        return problem_response(
            STATUS_OF[error.kind], error.code, error.message, request_id=request_id_of(request), errors=[refused]
        )

    app.add_exception_handler(UnknownRegionError, on_unknown_region)
