"""MongoDB adapters: one module per collection."""

from __future__ import annotations

from services.auth.repository.api_keys import MongoApiKeys
from services.auth.repository.audit import MongoAudit
from services.auth.repository.key_directory import MongoKeyDirectory
from services.auth.repository.links import MongoLinks
from services.auth.repository.sessions import MongoSessions
from services.auth.repository.strangers import MongoStrangers
from services.auth.repository.users import MongoUsers, recall_user

__all__ = [
    "MongoApiKeys",
    "MongoAudit",
    "MongoKeyDirectory",
    "MongoLinks",
    "MongoSessions",
    "MongoStrangers",
    "MongoUsers",
    "recall_user",
]
