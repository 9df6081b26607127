"""The collection in which a service's database says what state it is in, and the mark of a restore under way."""

from __future__ import annotations

SCHEMA = "devpocket_schema"
RESTORING = "restoring"
"""Id of the document that is there for as long as the database is not completely restored."""
