"""MongoDB adapters: queries, conditional writes, indexes."""

from __future__ import annotations

from services.orchestrator.repository.clusters import CLUSTERS, MongoClusters
from services.orchestrator.repository.environments import COLLECTION, SERVICE, MongoEnvironments

__all__ = ["CLUSTERS", "COLLECTION", "SERVICE", "MongoClusters", "MongoEnvironments"]
