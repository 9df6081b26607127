"""From options to the processes of a stack, in the order in which they start."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from libs.cli.stack.certificates import Certificate, stack_certificate
from libs.cli.stack.credentials import Credentials
from libs.cli.stack.gateway import CONNECTIONS_PER_ADDRESS, REQUESTS_PER_SECOND, gateway_process, local_config
from libs.cli.stack.infrastructure.database import database_process, mongodb_url
from libs.cli.stack.infrastructure.nats import nats_process, nats_url
from libs.cli.stack.infrastructure.redis import redis_process, redis_url
from libs.cli.stack.paths import StackPaths
from libs.cli.stack.ports import LOOPBACK, PortPicker
from libs.cli.stack.services import replica_names, service_process
from libs.cli.stack.settings import gateway_limits, stack_settings, with_inherited
from libs.cli.stack.specs import SERVICES, ProcessSpec, ServiceSpec, Stage

MAX_REPLICAS = 16
JWKS_PATH = "/api/v1/auth/.well-known/jwks.json"

_LOGIN_IN_URL = re.compile(r"(?<=://)[^/@]*@")


class OptionError(ValueError):
    """An option makes no sense; the text says which and what would."""


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What `devpocket up` was asked for. `replicas` holds the services that are not to run exactly once. `tls`: with a
    certificate of our own, unless the operator brings one."""

    paths: StackPaths
    port: int = 8000
    replicas: Mapping[str, int] = field(default_factory=dict)
    services: Sequence[ServiceSpec] = SERVICES
    working_dir: Path = field(default_factory=Path.cwd)
    tls: bool = False


@dataclass(frozen=True, slots=True)
class StackPlan:
    """`settings` holds credentials, `connections` does not. Others may choose the `ports` when these are closed.
    `certificate` is the gateway's, None for plain HTTP."""

    url: str
    stages: tuple[Stage, ...]
    connections: Mapping[str, str]
    settings: Mapping[str, str] = field(repr=False)
    ports: PortPicker = field(repr=False)
    certificate: Certificate | None = None


def parse_scale(values: Sequence[str], services: Sequence[ServiceSpec] = SERVICES) -> dict[str, int]:
    """`["terminal=2"]` as numbers. Raises OptionError."""
    known = [service.name for service in services]
    replicas: dict[str, int] = {}
    for value in values:
        name, separator, number = value.partition("=")
        if not separator or name not in known:
            raise OptionError(f"--scale {value}: write SERVICE=N, where SERVICE is one of {', '.join(known)}")
        if not number.isdecimal() or not 1 <= int(number) <= MAX_REPLICAS:
            raise OptionError(f"--scale {value}: N is a number from 1 to {MAX_REPLICAS}")
        replicas[name] = int(number)
    return replicas


def make_plan(
    options: StackOptions,
    operator: Mapping[str, str],
    credentials: Credentials,
    previous_ports: Mapping[str, int],
) -> StackPlan:
    """Choose ports, write configuration files, describe every process. Raises CertificateError, MissingProgramError,
    NoFreePortError, SettingError."""
    certificate = stack_certificate(
        operator, options.paths.own_certificate, socket.gethostname(), self_signed=options.tls
    )
    picker = PortPicker(reserved=[options.port])
    servers, connections = infrastructure(options.paths, operator, credentials, previous_ports, picker)
    names = {item.name: replica_names(item.name, options.replicas.get(item.name, 1)) for item in options.services}
    ports = {name: picker.pick(previous_ports.get(name)) for group in names.values() for name in group}
    jwks_url = ",".join(f"http://{LOOPBACK}:{ports[auth]}{JWKS_PATH}" for auth in names["auth"])
    url = f"https://{certificate.host}:{options.port}" if certificate else f"http://{LOOPBACK}:{options.port}"
    settings = stack_settings(operator, connections, credentials, options.paths, jwks_url=jwks_url, public_url=url)
    environment = with_inherited(settings)
    services = tuple(
        service_process(item, name, ports[name], environment, options.working_dir)
        for item in options.services
        for name in names[item.name]
    )
    upstreams = {service: [f"{LOOPBACK}:{ports[name]}" for name in group] for service, group in names.items()}
    limits = gateway_limits(operator, REQUESTS_PER_SECOND, CONNECTIONS_PER_ADDRESS)
    config = local_config(options.paths, options.port, upstreams, limits, certificate)
    gateway = gateway_process(config, options.paths, options.port)
    stages = (Stage("infrastructure", servers), Stage("services", services), Stage("gateway", (gateway,)))
    shown = {name: without_login(settings[name]) for name in ("MONGODB_URL", "NATS_URL", "REDIS_URL")}
    return StackPlan(url, stages, shown, settings, picker, certificate)


def infrastructure(
    paths: StackPaths,
    operator: Mapping[str, str],
    credentials: Credentials,
    previous_ports: Mapping[str, int],
    picker: PortPicker,
) -> tuple[tuple[ProcessSpec, ...], dict[str, str]]:
    """Servers to start, and their URLs; what the operator brings is not among them. Raises MissingProgramError,
    NoFreePortError."""
    specs: list[ProcessSpec] = []
    urls: dict[str, str] = {}
    if not operator.get("NATS_URL"):
        port = picker.pick(previous_ports.get("nats"))
        specs.append(nats_process(paths, port, credentials))
        urls["NATS_URL"] = nats_url(port, credentials)
    if not operator.get("REDIS_URL"):
        port = picker.pick(previous_ports.get("redis"))
        specs.append(redis_process(paths, port, credentials))
        urls["REDIS_URL"] = redis_url(port, credentials)
    if not operator.get("MONGODB_URL"):
        port = picker.pick(previous_ports.get("mongodb"))
        specs.append(database_process(paths, port, credentials, picker))
        urls["MONGODB_URL"] = mongodb_url(port, credentials)
    return tuple(specs), urls


def without_login(url: str) -> str:
    """The URL without user name and password, of each member where it names several (with commas between)."""
    return _LOGIN_IN_URL.sub("", url)
