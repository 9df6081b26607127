"""Settings without a class: what `devpocket up` and docker compose read beside the settings of the services."""

from __future__ import annotations

from libs.common.settings_page import Setting

_UP = ("devpocket up",)
_COMPOSE = ("docker compose",)
_SERVICES = ("auth", "envs", "orchestrator", "terminal")
_IMAGE = (*_COMPOSE, "the gateway's image")
_GATEWAYS = (*_UP, *_IMAGE)

OTHER_SETTINGS = (
    Setting(
        name="GATEWAY_TLS_CERT",
        kind="path",
        default="unset",
        readers=_UP,
        description="The gateway's certificate with its chain, PEM; unset, plain HTTP or the one that --tls makes",
    ),
    Setting(
        name="GATEWAY_TLS_KEY",
        kind="path",
        default="unset",
        readers=_UP,
        description="The key of GATEWAY_TLS_CERT, PEM without a pass phrase",
    ),
    Setting(
        name="GATEWAY_RATE_LIMIT",
        kind="whole number (per second)",
        default="`100`",
        readers=_GATEWAYS,
        description="What the gateway lets through for each address; 0 is no limit, for devpocket up an empty "
        "RATE_LIMIT_GLOBAL as well",
        bounds="≥ 0",
    ),
    Setting(
        name="GATEWAY_CONNECTION_LIMIT",
        kind="whole number",
        default="`1000`",
        readers=_GATEWAYS,
        description="Requests at a time for each address, WebSockets and event streams included; 0 is no limit",
        bounds="≥ 0",
    ),
    Setting(
        name="GATEWAY_TLS_CHECK_SECONDS",
        kind="whole number (seconds)",
        default="`60`",
        readers=_IMAGE,
        description="How often the gateway looks whether its certificate has been renewed",
        bounds="≥ 1",
    ),
    Setting(
        name="GATEWAY_LOOKUP_SECONDS",
        kind="whole number (seconds)",
        default="`2`",
        readers=_IMAGE,
        description="How often the gateway looks whether replicas of the services have come or gone",
        bounds="≥ 1",
    ),
    Setting(
        name="GATEWAY_TLS_PORT",
        kind="whole number",
        default="`8443`; in the image `443`",
        readers=_IMAGE,
        description="Port of the host for https, where plain http is sent",
    ),
    Setting(
        name="GATEWAY_TLS_DIR",
        kind="path",
        default="unset",
        readers=_COMPOSE,
        description="A folder with tls.crt and tls.key, readable by user 101; unset, plain HTTP",
    ),
    Setting(
        name="GATEWAY_PROXIES_DIR",
        kind="path",
        default="unset",
        readers=_COMPOSE,
        description="A folder of files that say which proxies in front of the gateway are believed",
    ),
    Setting(
        name="OTEL_EXPORTER_OTLP_ENDPOINT",
        kind="text",
        default="unset",
        readers=_SERVICES,
        description="Where traces go (OTLP), e.g. http://collector.example.com:4318; unset, nowhere",
    ),
    Setting(
        name="OTEL_EXPORTER_OTLP_HEADERS",
        kind="text",
        default="none",
        readers=_SERVICES,
        description="What the collector wants to see with each request: name=value, with commas between",
        is_secret=True,
    ),
    Setting(
        name="OTEL_TRACES_SAMPLER",
        kind="text",
        default="`parentbased_always_on`",
        readers=_SERVICES,
        description="Which traces are kept, e.g. parentbased_traceidratio; see tracing.md",
    ),
    Setting(
        name="OTEL_TRACES_SAMPLER_ARG",
        kind="text",
        default="`1.0`",
        readers=_SERVICES,
        description="The share of traces that such a sampler keeps, 0 to 1",
    ),
    Setting(
        name="METRICS_RETENTION",
        kind="text",
        default="`15d`",
        readers=_COMPOSE,
        description="How long metrics are kept (--profile monitoring)",
    ),
    *(
        Setting(
            name=f"{page.upper()}_PORT",
            kind="whole number",
            default=f"`{port}`",
            readers=_COMPOSE,
            description=f"Port of {page} on loopback (--profile monitoring)",
        )
        for page, port in (("Prometheus", 9090), ("Alertmanager", 9093), ("Grafana", 3000))
    ),
    *(
        Setting(
            name=f"{server}_PASSWORD",
            kind="text",
            default="none: must be set",
            readers=_COMPOSE,
            description=f"Of the {title} in the compose file; letters and digits, because it stands in a URL",
            is_secret=True,
        )
        for server, title in (("MONGODB", "MongoDB"), ("NATS", "NATS server"), ("REDIS", "Redis"))
    ),
    Setting(
        name="GATEWAY_ADDRESS",
        kind="text",
        default="`127.0.0.1`",
        readers=_COMPOSE,
        description="Address of the host that the gateway is published at",
    ),
    Setting(
        name="GATEWAY_PORT",
        kind="whole number",
        default="`8000`",
        readers=_COMPOSE,
        description="Port of the host that the gateway is published at",
    ),
    Setting(
        name="SANDBOXES_MEMORY",
        kind="size",
        default="`4g`",
        readers=_COMPOSE,
        description="Memory of each container that makes local sandboxes, which are in it",
    ),
    Setting(
        name="PRIVILEGED_SANDBOXES",
        kind="true or false",
        default="`true`",
        readers=_COMPOSE,
        description="Whether those containers may make sandboxes; false where workspaces are pods",
    ),
    Setting(
        name="K3S_IMAGE",
        kind="text",
        default="`rancher/k3s:v1.34.1-k3s1`",
        readers=_COMPOSE,
        description="The cluster of the profile k3s",
    ),
    Setting(
        name="BACKUP_DIR",
        kind="text",
        default="a volume",
        readers=_COMPOSE,
        description="The folder that the container of the devpocket command sees as /backups; user 10001 writes there",
    ),
)
