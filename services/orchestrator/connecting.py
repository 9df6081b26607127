"""Credentials of clusters, tried out and sealed."""

from __future__ import annotations

from libs.common.clusters import ClusterDrivers
from libs.common.contracts.clusters import ClusterConnection


class Connector:
    """`ClusterConnector` with real drivers."""

    def __init__(self, drivers: ClusterDrivers) -> None:
        self._drivers = drivers

    def seal(self, connection: ClusterConnection) -> str:
        """See ClusterConnector."""
        return self._drivers.seal(connection)

    async def try_out(self, cluster_id: str, connection: ClusterConnection) -> str:
        """See ClusterConnector."""
        driver = self._drivers.connect(cluster_id, connection)
        try:
            await driver.open()
            return await driver.check()
        finally:
            await driver.close()
