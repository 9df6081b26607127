"""Settings of whoever uses a runtime. Names are those of the environment variables, in lower case."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

from libs.runtime.kubernetes.options import ClusterAccess, KubernetesOptions
from libs.runtime.port import PullPolicy


class RuntimeSettings(BaseSettings):
    """What runs the workspaces. Services that share a cluster need the same namespace prefix."""

    runtime: Literal["local", "kubernetes"] = Field(
        default="local", description="What runs the workspaces of the cluster `default`"
    )
    local_runtime_dir: Path = Field(
        default=Path(".devpocket/runtime"), description="State and workspaces of the local runtime"
    )
    local_runtime_isolation: Literal["require", "auto", "none"] = Field(
        default="auto",
        description="Sandboxes of the local runtime: require them, use them where possible, or plain processes",
    )
    local_runtime_blocked_cidrs: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Addresses that no local sandbox may reach, beside cloud metadata; with commas between",
    )

    kubeconfig: str | None = Field(
        default=None,
        description="File with the credentials of the cluster `default`; without one, the pod's own service account",
    )
    kubernetes_context: str | None = Field(default=None, description="Context in KUBECONFIG; else its current one")
    kubernetes_namespace_prefix: str = Field(
        default="devpocket",
        pattern=r"^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$",
        description="What the namespaces of users begin with, in every cluster; 1 to 20 characters of a DNS label",
    )
    kubernetes_image_pull_policy: PullPolicy = Field(
        default="IfNotPresent", description="For templates that name no policy: Always, IfNotPresent or Never"
    )
    kubernetes_storage_class: str | None = Field(
        default=None, description="StorageClass of workspace volumes in `default`; else the cluster's own default"
    )
    kubernetes_runtime_class: str | None = Field(
        default=None, description="RuntimeClass of workspaces in `default`, e.g. one of gVisor or Kata Containers"
    )
    kubernetes_blocked_cidrs: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Addresses that no workspace may reach, beside private ones; with commas between"
    )

    @field_validator("kubernetes_blocked_cidrs", "local_runtime_blocked_cidrs", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("local_runtime_blocked_cidrs")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ip_network(part)) for part in value)

    @field_validator(
        "kubeconfig", "kubernetes_context", "kubernetes_storage_class", "kubernetes_runtime_class", mode="before"
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return value or None

    def kubernetes_access(self) -> ClusterAccess:
        """How the cluster `default` is reached with RUNTIME=kubernetes."""
        return ClusterAccess(path=self.kubeconfig, context=self.kubernetes_context)

    def kubernetes_options(self) -> KubernetesOptions:
        """How the cluster `default` is used with RUNTIME=kubernetes."""
        return KubernetesOptions(
            namespace_prefix=self.kubernetes_namespace_prefix,
            pull_policy=self.kubernetes_image_pull_policy,
            storage_class=self.kubernetes_storage_class,
            runtime_class=self.kubernetes_runtime_class,
            blocked_cidrs=self.kubernetes_blocked_cidrs,
        )
