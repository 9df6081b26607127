"""From what is known of a cluster to its driver. Only services that work with a runtime import this."""

from __future__ import annotations

from dataclasses import replace

from pydantic import ValidationError

from libs.common.contracts.clusters import CLUSTER_SEAL, ClusterConnection
from libs.common.security.sealing import SealBrokenError, Sealer
from libs.runtime.factory import default_driver, kubernetes_driver
from libs.runtime.kubernetes.options import ClusterAccess
from libs.runtime.port import Driver, RuntimeUnavailableError
from libs.runtime.settings import RuntimeSettings


class ClusterDrivers:
    """Makes drivers, not opened yet. `secret_key` is SECRET_KEY, under which connections are sealed."""

    def __init__(self, settings: RuntimeSettings, secret_key: str) -> None:
        self._settings = settings
        self._sealer = Sealer(secret_key, CLUSTER_SEAL)

    def seal(self, connection: ClusterConnection) -> str:
        """For storing it and sending it over the bus."""
        return self._sealer.seal(connection.model_dump_json())

    def open(self, sealed: str) -> ClusterConnection:
        """Raises RuntimeUnavailableError when it was sealed with another SECRET_KEY."""
        try:
            return ClusterConnection.model_validate_json(self._sealer.open(sealed))
        except (SealBrokenError, ValidationError) as error:
            raise RuntimeUnavailableError(
                "The cluster's credentials cannot be read: they were stored under another SECRET_KEY. Register them "
                "again with `devpocket clusters update`.",
                reason="ClusterConfigInvalid",
            ) from error

    def make(self, cluster_id: str, connection_sealed: str | None) -> Driver:
        """For the cluster of the settings when there is no connection. Raises RuntimeUnavailableError."""
        if connection_sealed is None:
            return default_driver(self._settings)
        return self.connect(cluster_id, self.open(connection_sealed))

    def connect(self, cluster_id: str, connection: ClusterConnection) -> Driver:
        """For a registered cluster. Raises RuntimeUnavailableError when the client's package is missing."""
        options = replace(
            self._settings.kubernetes_options(),
            cluster=cluster_id,
            storage_class=connection.storage_class,
            runtime_class=connection.runtime_class,
            blocked_cidrs=connection.blocked_cidrs,
        )
        access = ClusterAccess(kubeconfig=connection.kubeconfig, context=connection.context)
        return kubernetes_driver(access, options)
