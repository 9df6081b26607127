"""Bodies and answers of the orchestrator's API."""

from __future__ import annotations

import json
from datetime import datetime
from enum import StrEnum
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from libs.common.contracts.clusters import DEFAULT_CLUSTER, ClusterConnection, ClusterHealth, ClusterStatus
from services.orchestrator.domain.clusters import ClusterEdit
from services.orchestrator.service.clusters import ClusterView, NewCluster

MAX_KUBECONFIG_BYTES = 256 * 1024
_MAX_DEPTH = 32
# They say nothing by themselves: the access is changed as a whole.
_WITH_KUBECONFIG = ("context", "storage_class", "runtime_class", "blocked_cidrs")


class Availability(StrEnum):
    """Whether workspaces can be started there now."""

    AVAILABLE = "available"
    UNAVAILABLE = "unavailable"


class Region(BaseModel):
    """Where environments can run."""

    name: str = Field(description="What `region` of a new environment may be")
    status: Availability
    is_default: bool = Field(description="Taken when a new environment names none")


class Cluster(BaseModel):
    """One cluster, for operators. Credentials are never shown."""

    id: str
    name: str
    region: str
    runtime: str = Field(description="local or kubernetes")
    is_default: bool
    status: ClusterStatus
    health: ClusterHealth
    health_reason: str | None = Field(description="Why it is unreachable, one CamelCase word")
    health_message: str | None = Field(description="Why it is unreachable, in a sentence")
    server_version: str | None = Field(description="What it said of itself when it last answered")
    environments: int = Field(description="Environments placed there and not deleted")
    capacity: int | None = Field(description="Environments it takes; null for any number")
    source: str = Field(description="settings or registered")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, view: ClusterView) -> Self:
        """As an answer."""
        cluster = view.cluster
        return cls(
            id=cluster.id,
            name=cluster.id,
            region=cluster.region,
            runtime=cluster.runtime,
            is_default=view.is_default,
            status=cluster.status,
            health=cluster.health,
            health_reason=cluster.reason,
            health_message=cluster.message,
            server_version=cluster.server_version,
            environments=view.environments,
            capacity=cluster.capacity,
            source="settings" if cluster.id == DEFAULT_CLUSTER else "registered",
            created_at=cluster.created_at,
            updated_at=cluster.updated_at,
        )


def parse_kubeconfig(given: str | dict[str, Any]) -> dict[str, Any]:
    """A kubeconfig as a mapping, from YAML or JSON text or parsed already. Raises ValueError, which repeats nothing."""
    parsed: object = given
    if isinstance(given, str):
        _weigh(given)
        try:
            parsed = yaml.safe_load(given)  # type: ignore[no-untyped-call]
        except Exception as error:  # the parser raises whatever a malformed value makes it stumble over
            raise ValueError("The kubeconfig is no valid YAML") from error
    _weigh(parsed)
    parsed = _plain(parsed)
    if not isinstance(parsed, dict):
        raise ValueError("This is no kubeconfig: it is no mapping")
    for part in ("clusters", "users", "contexts"):
        entries = parsed.get(part)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) and "name" in entry for entry in entries):
            raise ValueError(f"This is no kubeconfig: {part} must be a list of entries with names")
    return parsed


def _weigh(value: object) -> None:
    """Raises ValueError for what is too large, also when it is so only once its YAML aliases are written out."""
    room, todo = MAX_KUBECONFIG_BYTES, [(value, 0)]
    while todo:
        item, depth = todo.pop()
        room -= len(item.encode(errors="surrogatepass")) if isinstance(item, str) else 2
        if room < 0 or depth > _MAX_DEPTH:
            raise ValueError(f"The kubeconfig is larger than {MAX_KUBECONFIG_BYTES // 1024} KiB, or too deep")
        parts = [*item.keys(), *item.values()] if isinstance(item, dict) else item if isinstance(item, list) else ()
        todo += [(part, depth + 1) for part in parts]


def _plain(value: object) -> Any:
    """As JSON has it: YAML knows dates, sets and bytes too. Raises ValueError for what cannot be said in JSON."""
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError) as error:
        raise ValueError("The kubeconfig holds keys or text that JSON cannot express") from error
    return json.loads(text)


def _cidr(value: str) -> str:
    return str(ip_network(value.strip(), strict=False))


Kubeconfig = Annotated[
    str | dict[str, Any],
    AfterValidator(parse_kubeconfig),
    Field(description="YAML text or an object, with embedded certificates or a token: no files, no plug-ins"),
]
Cidr = Annotated[str, AfterValidator(_cidr)]
Label = Annotated[str, Field(min_length=1, max_length=40)]
Capacity = Annotated[int, Field(ge=0, le=1_000_000, description="Environments it takes; null or 0 for any number")]


class _Access(BaseModel):
    """How a cluster is reached and used."""

    model_config = ConfigDict(extra="forbid")

    terminal_kubeconfig: Kubeconfig | None = Field(
        default=None, repr=False, description="The terminal service's own access, with fewer rights; else it shares"
    )
    context: str | None = Field(default=None, max_length=253, description="Context to use; else the current one")
    storage_class: str | None = Field(default=None, max_length=253, description="For workspace volumes")
    runtime_class: str | None = Field(default=None, max_length=253, description="For workspace pods")
    blocked_cidrs: list[Cidr] = Field(default_factory=list, max_length=100, description="Beside private addresses")
    verify: bool = Field(default=True, description="Refuse credentials that do not work")

    def connection(self, kubeconfig: str | dict[str, Any]) -> ClusterConnection:
        """With one of the two kubeconfigs."""
        return ClusterConnection(
            kubeconfig=parse_kubeconfig(kubeconfig),
            context=self.context,
            storage_class=self.storage_class,
            runtime_class=self.runtime_class,
            blocked_cidrs=tuple(self.blocked_cidrs),
        )

    def terminal_connection(self) -> ClusterConnection | None:
        """The terminal service's, if it has its own."""
        return None if self.terminal_kubeconfig is None else self.connection(self.terminal_kubeconfig)


class ClusterCreate(_Access):
    """A cluster to register."""

    name: Label = Field(description="Its name for ever: a DNS label")
    region: Label = Field(description="What `region` of an environment means it; several clusters may share one")
    kubeconfig: Kubeconfig = Field(repr=False)
    is_default: bool = Field(default=False, description="For environments that name no region")
    capacity: Capacity | None = None

    def to_domain(self) -> NewCluster:
        """As the use case takes it."""
        return NewCluster(
            name=self.name,
            region=self.region,
            connection=self.connection(self.kubeconfig),
            terminal=self.terminal_connection(),
            is_default=self.is_default,
            capacity=self.capacity or None,
        )


class ClusterUpdate(_Access):
    """What to change; null or left out stays. The access is changed as a whole, when `kubeconfig` is given."""

    region: Label | None = None
    kubeconfig: Kubeconfig | None = Field(default=None, repr=False)
    is_default: bool | None = None
    capacity: Capacity | None = None
    status: Literal["active", "draining"] | None = Field(
        default=None, description="draining: no new environments, those it has go on"
    )

    @model_validator(mode="after")
    def _needs_kubeconfig(self) -> Self:
        lonely = [name for name in _WITH_KUBECONFIG if getattr(self, name)]
        if lonely and self.kubeconfig is None and self.terminal_kubeconfig is None:
            raise ValueError(f"{lonely[0]} can only be changed together with the kubeconfig, which is missing")
        return self

    def to_domain(self) -> ClusterEdit:
        """All but the access."""
        return ClusterEdit(
            region=self.region,
            capacity=self.capacity,
            is_default=self.is_default,
            status=None if self.status is None else ClusterStatus(self.status),
        )
