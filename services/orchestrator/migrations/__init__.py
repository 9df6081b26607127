"""What has changed about the documents of this service: one entry for each change, never edited, never removed."""

from __future__ import annotations

from libs.common.contracts.clusters import DEFAULT_CLUSTER
from libs.common.migrations.plan import Backfill
from libs.common.security.identities import user_migrations

MIGRATIONS = (
    *user_migrations(1),
    Backfill(
        number=3,
        name="workspaces-name-their-cluster",
        collection="workspaces",
        old={"cluster": {"$exists": False}},
        # Documents written before there were several clusters are all about this one.
        change={"$set": {"cluster": DEFAULT_CLUSTER}},
        blocking=True,
    ),
    Backfill(
        number=4,
        name="workspaces-say-what-delays-them",
        collection="workspaces",
        old={"delayed_by": {"$exists": False}},
        change={"$set": {"delayed_by": None}},
        blocking=True,
    ),
)
