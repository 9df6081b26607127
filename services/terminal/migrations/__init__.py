"""What has changed about the documents of this service: one entry for each change, never edited, never removed."""

from __future__ import annotations

from libs.common.migrations.plan import Backfill
from libs.common.security.identities import user_migrations

MIGRATIONS = (
    *user_migrations(1),
    # Sessions that were opened before shells outlived the service. The code still reads both shapes.
    Backfill(
        number=3,
        name="sessions-say-how-they-are-held",
        collection="sessions",
        old={"is_held": {"$exists": False}},
        change={"$set": {"is_held": False, "generation": 0, "login_id": ""}},
    ),
)
