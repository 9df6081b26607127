"""The orchestrator's ports about clusters, in memory, and clusters to play with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from libs.common.contracts.clusters import ClusterConnection, ClusterHealth, ClusterState
from services.orchestrator.domain.clusters import Cluster, ClusterChange, state_of
from tests.unit.orchestrator.memory import EPOCH, START

SECRET = "a-token-nobody-may-read"


def a_cluster(name: str, region: str = "eu", **changes: object) -> Cluster:
    """A healthy registered cluster."""
    values: dict[str, object] = {
        "id": name,
        "region": region,
        "runtime": "kubernetes",
        "created_at": START,
        "updated_at": START,
        "connection_sealed": f"sealed {name}",
        "terminal_sealed": f"sealed {name}",
        "health": ClusterHealth.HEALTHY,
        **changes,
    }
    return Cluster(**values)  # type: ignore[arg-type]


def a_kubeconfig(server: str = "https://127.0.0.1:6443", token: str = SECRET) -> dict[str, object]:
    """One that uses a token."""
    return {
        "current-context": "main",
        "clusters": [{"name": "main", "cluster": {"server": server}}],
        "users": [{"name": "main", "user": {"token": token}}],
        "contexts": [{"name": "main", "context": {"cluster": "main", "user": "main"}}],
    }


def a_connection(server: str = "https://127.0.0.1:6443", **changes: object) -> ClusterConnection:
    """How a cluster is reached."""
    return ClusterConnection.model_validate({"kubeconfig": a_kubeconfig(server), **changes})


@dataclass
class MemoryClusters:
    """`ClusterStore`; `events` holds what went out."""

    records: dict[str, Cluster] = field(default_factory=dict)
    checked_at: dict[str, datetime] = field(default_factory=dict)
    events: list[ClusterState] = field(default_factory=list)

    def have(self, *clusters: Cluster) -> None:
        """Put them in without a word."""
        self.records |= {cluster.id: cluster for cluster in clusters}

    async def all(self) -> Sequence[Cluster]:
        return [self.records[name] for name in sorted(self.records)]

    async def find(self, cluster_id: str) -> Cluster | None:
        return self.records.get(cluster_id)

    async def save(self, change: ClusterChange, *, is_default: bool) -> bool:
        there = self.records.get(change.cluster.id)
        if (there.version if there else 0) != change.before:
            return False
        self.records[change.cluster.id] = change.cluster
        if change.event is not None:
            self.events.append(change.event.model_validate(state_of(change.cluster, is_default=is_default)))
        return True

    async def claim_check(self, cluster_id: str, before: datetime, now: datetime) -> bool:
        if cluster_id not in self.records or self.checked_at.get(cluster_id, EPOCH) > before:
            return False
        self.checked_at[cluster_id] = now
        return True

    def told(self, cluster_id: str) -> list[str]:
        """The kinds of events about one cluster, e.g. `registered`."""
        return [event.TYPE.split(".")[1] for event in self.events if event.cluster_id == cluster_id]


@dataclass
class MemoryConnector:
    """`ClusterConnector` that finds `trouble` with a server, if there is some; `tried` are the servers it asked."""

    trouble: dict[str, Exception] = field(default_factory=dict)
    tried: list[str] = field(default_factory=list)
    connections: dict[str, ClusterConnection] = field(default_factory=dict)

    def seal(self, connection: ClusterConnection) -> str:
        sealed = f"sealed {len(self.connections)}"
        self.connections[sealed] = connection
        return sealed

    async def try_out(self, cluster_id: str, connection: ClusterConnection) -> str:
        server = str(connection.kubeconfig["clusters"][0]["cluster"]["server"])
        self.tried.append(server)
        if server in self.trouble:
            raise self.trouble[server]
        return "v1.36.1"
