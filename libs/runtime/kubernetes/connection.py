"""Credentials of one cluster, and the official client that uses them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config
from kubernetes.aio.config.kube_config import load_kube_config, load_kube_config_from_dict

from libs.runtime.kubernetes.options import ClusterAccess
from libs.runtime.port import RuntimeUnavailableError

# What a kubeconfig from outside must not hold: programs to run here, and files of this machine to read.
_UNTRUSTED_USER = ("exec", "auth-provider", "client-certificate", "client-key", "tokenFile")
_UNTRUSTED_CLUSTER = ("certificate-authority",)


class Connection:
    """One cluster's client. `refresh` reads the credentials anew."""

    def __init__(self, access: ClusterAccess) -> None:
        self._access = access
        self._configuration: Configuration | None = None
        self._http: ApiClient | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read the credentials. Raises RuntimeUnavailableError saying what is wrong with them."""
        if self._configuration is not None:
            return
        configuration = Configuration()
        # Watches, logs and terminals each hold a connection for long: the pool must not run out of them.
        configuration.connection_pool_maxsize = 0
        await self._load(configuration)
        self._configuration = configuration
        self._http = ApiClient(configuration)

    async def close(self) -> None:
        """Drop every connection."""
        client, self._http, self._configuration = self._http, None, None
        if client is not None:
            await client.close()

    @property
    def http(self) -> ApiClient:
        """The official client. Raises RuntimeUnavailableError before `open` and after `close`."""
        if self._http is None:
            raise RuntimeUnavailableError("The kubernetes runtime is not open.", reason="RuntimeClosed")
        return self._http

    @property
    def session(self) -> aiohttp.ClientSession:
        """The client's own session, for what the client does not offer: a WebSocket on which pings are ours."""
        transport = self.http.rest_client
        if transport.pool_manager is None:
            transport.pool_manager = transport._create_pool_manager()
        return transport.pool_manager

    async def refresh(self) -> None:
        """Read the credentials anew: they were refused, and tokens get renewed. Callers at the same time share it."""
        if self._configuration is None:
            return
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._load(self._configuration))
        await asyncio.shield(self._refreshing)

    async def _load(self, configuration: Configuration) -> None:
        access = self._access
        try:
            if access.kubeconfig is not None:
                check_kubeconfig(access.kubeconfig)
                await load_kube_config_from_dict(
                    dict(access.kubeconfig), context=access.context, client_configuration=configuration
                )
            elif access.path is not None:
                await self._load_file(access.path, configuration)
            else:
                load_incluster_config(client_configuration=configuration)
        except RuntimeUnavailableError:
            raise
        except Exception as error:  # the client raises whatever a malformed file makes it stumble over
            raise RuntimeUnavailableError(
                f"The credentials for the cluster cannot be used: {error}. Set KUBECONFIG to a readable kubeconfig, or "
                "run inside the cluster with a service account.",
                reason="ClusterConfigInvalid",
            ) from error

    async def _load_file(self, path: str, configuration: Configuration) -> None:
        if not _any_file(path):
            raise ConfigException(f"there is no file {path}")
        await load_kube_config(
            config_file=path, context=self._access.context, client_configuration=configuration, persist_config=False
        )


def _any_file(path: str) -> bool:
    return any(os.path.isfile(os.path.expanduser(part)) for part in path.split(os.pathsep))


def check_kubeconfig(kubeconfig: Mapping[str, Any]) -> None:
    """Refuse a kubeconfig from outside that would run programs or read files here. Raises RuntimeUnavailableError."""
    for kind, key, banned in (("users", "user", _UNTRUSTED_USER), ("clusters", "cluster", _UNTRUSTED_CLUSTER)):
        for entry in kubeconfig.get(kind) or []:
            found = [name for name in banned if (entry.get(key) or {}).get(name)]
            if found:
                raise RuntimeUnavailableError(
                    f"The kubeconfig's {key} {entry.get('name')!r} uses {', '.join(found)}, which would read files or "
                    "run programs on this server. Use embedded certificates (…-data) or a token.",
                    reason="ClusterConfigInvalid",
                )
