"""`devpocket clusters …`: clusters from the command line, straight on the database.

Events ride in the written documents; the sweep of a running orchestrator publishes them within seconds, and works with
the change. Settings come from the environment, where `devpocket` has put those of its stack.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError
from pymongo.errors import PyMongoError

from libs.common import mongo
from libs.common.clock import utc_now
from libs.common.clusters import ClusterDrivers
from libs.common.context import Cause, acting
from libs.common.errors import DevPocketError
from libs.common.messaging.outbox import OutboxRelay
from libs.common.telemetry import configure_telemetry
from services.orchestrator.connecting import Connector
from services.orchestrator.repository import CLUSTERS, COLLECTION, SERVICE, MongoClusters, MongoEnvironments
from services.orchestrator.schemas import Cluster, ClusterCreate, ClusterUpdate
from services.orchestrator.service.clusters import ClusterAdministration, ClusterView
from services.orchestrator.service.fleet import FleetRuntime
from services.orchestrator.service.registry import ClusterRegistry, DefaultCluster
from services.orchestrator.settings import OrchestratorSettings

app = typer.Typer(help="Kubernetes clusters that environments run in.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="The cluster's name.", metavar="NAME")]
ConfigFile = Annotated[Path, typer.Option("--kubeconfig-file", help="Its credentials.", exists=True, dir_okay=False)]
NewConfigFile = Annotated[
    Path | None, typer.Option("--kubeconfig-file", help="New credentials.", exists=True, dir_okay=False)
]
TerminalFile = Annotated[
    Path | None,
    typer.Option(
        "--terminal-kubeconfig-file",
        help="The terminal service's own credentials, with fewer rights.",
        exists=True,
        dir_okay=False,
    ),
]
Context = Annotated[str | None, typer.Option(help="Context in the kubeconfig; else its current one.")]
Capacity = Annotated[int | None, typer.Option(min=0, help="Environments it takes; 0 for any number.")]
StorageClass = Annotated[str | None, typer.Option(help="StorageClass of workspace volumes; else the cluster's own.")]
RuntimeClass = Annotated[str | None, typer.Option(help="RuntimeClass of workspaces, e.g. gvisor.")]
Cidrs = Annotated[
    list[str] | None, typer.Option("--blocked-cidr", help="Addresses no workspace may reach; repeatable.")
]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Do not try the credentials out from here.")]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Clusters:
    administration: ClusterAdministration
    registry: ClusterRegistry


@asynccontextmanager
async def _clusters() -> AsyncIterator[_Clusters]:
    settings = OrchestratorSettings()
    configure_telemetry(SERVICE, settings.model_copy(update={"log_level": "ERROR", "log_format": "console"}))
    client = mongo.connect(settings)
    database = mongo.database(client, settings, SERVICE)
    outbox = OutboxRelay.unheard()
    environments = MongoEnvironments(
        database[COLLECTION], outbox.attach(database[COLLECTION]), tombstone_life=timedelta(days=1)
    )
    store = MongoClusters(database[CLUSTERS], outbox.attach(database[CLUSTERS]))
    drivers = ClusterDrivers(settings, settings.secret_key.get_secret_value())
    fleet = FleetRuntime(in_flight=1)
    default = DefaultCluster(settings.region_name, settings.runtime)
    registry = ClusterRegistry(store, environments, fleet, drivers.make, utc_now, default=default)
    try:
        yield _Clusters(ClusterAdministration(store, environments, Connector(drivers), utc_now), registry)
    finally:
        await fleet.close()
        await mongo.close(client)


def _run(job: Callable[[_Clusters], Awaitable[T]]) -> T:
    """The result of `job`; an expected failure ends the command with its sentence and code 1."""

    async def run() -> T:
        with acting(Cause(actor="cli")):
            async with _clusters() as clusters:
                return await job(clusters)

    try:
        return asyncio.run(run())
    except ValidationError as error:
        _complain("; ".join(item["msg"].removeprefix("Value error, ") for item in error.errors(include_input=False)))
    except (DevPocketError, ValueError) as error:
        _complain(str(error))
    except mongo.UNAVAILABLE_ERRORS:
        _complain("MongoDB cannot be reached: is the stack running? Check MONGODB_URL")
    except PyMongoError as error:
        _complain(f"MongoDB refuses: {error}")
    raise typer.Exit(1)


def _complain(text: str) -> None:
    typer.secho(text, err=True, fg=typer.colors.RED)


def _print(views: Sequence[ClusterView], *, as_json: bool, single: bool = False) -> None:
    shown = [Cluster.of(view) for view in views]
    if as_json:
        documents = [cluster.model_dump(mode="json") for cluster in shown]
        typer.echo(json.dumps(documents[0] if single else documents))
        return
    for cluster in shown:
        room = f"{cluster.environments}" if cluster.capacity is None else f"{cluster.environments}/{cluster.capacity}"
        columns = (
            f"{cluster.name:<20}",
            f"{cluster.region:<14}",
            f"{cluster.runtime:<10}",
            f"{cluster.status:<8}",
            f"{cluster.health:<11}",
            f"{room:>8} environments",
            "default" if cluster.is_default else "",
        )
        typer.echo("  ".join(columns).rstrip())
        if cluster.health_message:
            typer.echo(f"  {cluster.health_reason}: {cluster.health_message}")


def _read(path: Path | None) -> str | None:
    return None if path is None else path.read_text()


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


@app.command()
def add(
    *,
    name: Annotated[str, typer.Option(help="Its name for ever: a DNS label.")],
    region: Annotated[str, typer.Option(help="The region that users name.")],
    kubeconfig_file: ConfigFile,
    terminal_kubeconfig_file: TerminalFile = None,
    default: Annotated[bool, typer.Option("--default", help="For environments that name no region.")] = False,
    context: Context = None,
    capacity: Capacity = None,
    storage_class: StorageClass = None,
    runtime_class: RuntimeClass = None,
    blocked_cidr: Cidrs = None,
    no_verify: NoVerify = False,
    as_json: Json = False,
) -> None:
    """Register a cluster. Its credentials are stored encrypted under SECRET_KEY."""

    async def job(clusters: _Clusters) -> ClusterView:
        body = ClusterCreate(
            name=name,
            region=region,
            kubeconfig=kubeconfig_file.read_text(),
            terminal_kubeconfig=_read(terminal_kubeconfig_file),
            is_default=default,
            context=context,
            capacity=capacity,
            storage_class=storage_class,
            runtime_class=runtime_class,
            blocked_cidrs=blocked_cidr or [],
        )
        return await clusters.administration.add(body.to_domain(), verify=not no_verify)

    _print([_run(job)], as_json=as_json, single=True)


@app.command()
def update(
    *,
    name: Name,
    region: Annotated[str | None, typer.Option(help="Another region, for environments to come.")] = None,
    kubeconfig_file: NewConfigFile = None,
    terminal_kubeconfig_file: TerminalFile = None,
    default: Annotated[
        bool | None, typer.Option("--default/--no-default", help="For environments that name no region.")
    ] = None,
    context: Context = None,
    capacity: Capacity = None,
    storage_class: StorageClass = None,
    runtime_class: RuntimeClass = None,
    blocked_cidr: Cidrs = None,
    no_verify: NoVerify = False,
    as_json: Json = False,
) -> None:
    """Change a cluster. How it is reached and used changes as a whole, with --kubeconfig-file."""

    async def job(clusters: _Clusters) -> ClusterView:
        body = ClusterUpdate(
            **_given(region=region, is_default=default, capacity=capacity, context=context),
            **_given(kubeconfig=_read(kubeconfig_file), terminal_kubeconfig=_read(terminal_kubeconfig_file)),
            **_given(storage_class=storage_class, runtime_class=runtime_class, blocked_cidrs=blocked_cidr),
        )
        connection = None if body.kubeconfig is None else body.connection(body.kubeconfig)
        return await clusters.administration.update(
            name,
            body.to_domain(),
            connection=connection,
            terminal=body.terminal_connection(),
            verify=not no_verify,
        )

    _print([_run(job)], as_json=as_json, single=True)


@app.command("list")
def list_clusters(as_json: Json = False) -> None:
    """List the clusters, with what is known of their health."""
    _print(_run(lambda clusters: clusters.administration.listed()), as_json=as_json)


@app.command()
def health(
    name: Annotated[str | None, typer.Argument(help="One cluster; else all.", metavar="[NAME]")] = None,
    as_json: Json = False,
) -> None:
    """Ask clusters, from here, how they are. Code 1 when one does not answer."""

    async def job(clusters: _Clusters) -> list[ClusterView]:
        await clusters.registry.refresh()
        found = await clusters.administration.listed() if name is None else [await clusters.administration.get(name)]
        # Not kept: that they cannot be reached from here is no news for those that work with them.
        results = await asyncio.gather(*(clusters.registry.ask(view.cluster.id) for view in found))
        return [view.answered(result) for view, result in zip(found, results, strict=True)]

    views = _run(job)
    _print(views, as_json=as_json, single=name is not None)
    if any(view.cluster.health != "healthy" for view in views):
        raise typer.Exit(1)


@app.command()
def drain(
    name: Name,
    undo: Annotated[bool, typer.Option("--undo", help="Let it take new environments again.")] = False,
    as_json: Json = False,
) -> None:
    """Place no new environments there; those it has go on."""

    async def job(clusters: _Clusters) -> ClusterView:
        body = ClusterUpdate(status="active" if undo else "draining")
        return await clusters.administration.update(name, body.to_domain())

    _print([_run(job)], as_json=as_json, single=True)


@app.command()
def remove(
    name: Name,
    force: Annotated[
        bool, typer.Option("--force", help="Also when environments live there: they are lost to their owners.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Forget a cluster and its credentials. Nothing is deleted in the cluster itself."""
    _run(lambda clusters: clusters.administration.remove(name, force=force))
    typer.echo(json.dumps({"removed": name}) if as_json else f"Removed {name}")
