"""What has changed about the documents of this service: one entry for each change, never edited, never removed."""

from __future__ import annotations

from libs.common.migrations.plan import Backfill

MIGRATIONS: tuple[Backfill, ...] = ()
