"""Why a service does not work on its database. Each message is a sentence for the operator."""

from __future__ import annotations

from libs.common.errors import UnavailableError


class SchemaNotReadyError(UnavailableError):
    """The database is not what this version works on, yet or any more."""

    code = "schema_not_ready"


class LeaseLostError(Exception):
    """Another replica has taken the migration over, because this one was away for too long."""
