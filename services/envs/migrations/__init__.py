"""What has changed about the documents of this service: one entry for each change, never edited, never removed."""

from __future__ import annotations

from libs.common.security.identities import user_migrations

MIGRATIONS = user_migrations(1)
