"""Makes drivers of the runtime port."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libs.runtime.local.isolation import IsolationPolicy
from libs.runtime.local.runtime import LocalRuntime
from libs.runtime.port import Driver, RuntimeUnavailableError
from libs.runtime.settings import RuntimeSettings

if TYPE_CHECKING:
    from libs.runtime.kubernetes.options import ClusterAccess, KubernetesOptions
    from libs.runtime.kubernetes.runtime import KubernetesRuntime


def default_driver(settings: RuntimeSettings) -> Driver:
    """The driver of the cluster that the settings name. Raises RuntimeUnavailableError when its package is missing."""
    if settings.runtime == "kubernetes":
        return kubernetes_driver(settings.kubernetes_access(), settings.kubernetes_options())
    return LocalRuntime(
        settings.local_runtime_dir,
        IsolationPolicy(settings.local_runtime_isolation),
        settings.local_runtime_blocked_cidrs,
    )


def kubernetes_driver(access: ClusterAccess, options: KubernetesOptions) -> KubernetesRuntime:
    """The driver of one Kubernetes cluster. Raises RuntimeUnavailableError when its package is missing."""
    try:
        # Imported late: the client costs 30 MB that a local stack need not pay.
        from libs.runtime.kubernetes.runtime import KubernetesRuntime  # noqa: PLC0415
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"RUNTIME=kubernetes needs the kubernetes package: {error}. It comes with the orchestrator and terminal "
            "groups of this distribution.",
            reason="DriverMissing",
        ) from error
    return KubernetesRuntime(access, options)
