"""Whether sandboxes can have a network of their own, and how the shim is to make it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from libs.runtime.local.environment import CLEAN_ENVIRONMENT
from libs.runtime.local.isolation import Isolation, find_program

# A cloud machine's metadata service hands out credentials.
_METADATA = "169.254.169.254/32"


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """`config` goes to the shim; None means loopback only, and `problem` says why."""

    config: dict[str, Any] | None
    problem: str | None = None


def plan_network(isolation: Isolation, blocked: Sequence[str] = ()) -> NetworkPlan:
    """Look for slirp4netns and the tun device. Plain processes share the host's network and need no plan.

    `blocked` are the addresses (CIDR) that environments have no route to, beside the cloud's metadata service.
    """
    if isolation is Isolation.PLAIN:
        return NetworkPlan(None)
    slirp = find_program("slirp4netns")
    if slirp is None:
        return NetworkPlan(None, "Environments have no network: slirp4netns is missing (apt install slirp4netns).")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return NetworkPlan(None, "Environments have no network: /dev/net/tun cannot be used (modprobe tun).")
    address_tool, enter = find_program("ip"), find_program("nsenter")
    user_namespace = isolation is Isolation.USER_NAMESPACE
    return NetworkPlan(
        {
            # Host loopback is where the stack's own services listen.
            "argv": [slirp, "--configure", "--mtu=65520", "--disable-host-loopback"],
            "hardening": ["--enable-sandbox", "--enable-seccomp"],
            "route": [
                enter,
                *(["--preserve-credentials"] if user_namespace else []),
                *("--", address_tool, "route", "add", "unreachable"),
            ]
            if address_tool and enter
            else [],
            "unreachable": [_METADATA, *blocked],
            "user_namespace": user_namespace,
            "env": dict(CLEAN_ENVIRONMENT),
        }
    )
