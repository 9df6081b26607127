"""Settings without a class: what `devpocket up` and docker compose read beside the settings of the services."""

from __future__ import annotations

from libs.common.settings_page import Setting

_UP = ("devpocket up",)
_COMPOSE = ("docker compose",)
_BOTH = (*_UP, *_COMPOSE)

OTHER_SETTINGS = (
    Setting(
        name="GATEWAY_RATE_LIMIT",
        kind="whole number (per second)",
        default="`100`",
        readers=_BOTH,
        description="What the gateway lets through for each address; 0 (locally also RATE_LIMIT_GLOBAL=) is no limit",
        bounds="≥ 0",
    ),
    Setting(
        name="GATEWAY_CONNECTION_LIMIT",
        kind="whole number",
        default="`1000`",
        readers=_BOTH,
        description="Requests at a time for each address, WebSockets included; 0 as above",
        bounds="≥ 0",
    ),
    Setting(
        name="GATEWAY_TLS_CERT",
        kind="path",
        default="unset",
        readers=_UP,
        description="Certificate with its chain, in PEM; with it the gateway speaks TLS, as with `devpocket up --tls`",
    ),
    Setting(
        name="GATEWAY_TLS_KEY",
        kind="path",
        default="unset",
        readers=_UP,
        description="Its key, in PEM",
    ),
    Setting(
        name="GATEWAY_TLS_DIR",
        kind="path",
        default="unset",
        readers=_COMPOSE,
        description="A folder with tls.crt and tls.key, readable by user 101",
    ),
    Setting(
        name="GATEWAY_TLS_PORT",
        kind="whole number",
        default="`8443`",
        readers=_COMPOSE,
        description="Port of the host that https is published at",
    ),
    Setting(
        name="GATEWAY_TLS_CHECK_SECONDS",
        kind="whole number (seconds)",
        default="`60`",
        readers=_COMPOSE,
        description="How often the gateway looks whether the certificate has been renewed",
    ),
    Setting(
        name="GATEWAY_PROXIES_DIR",
        kind="path",
        default="unset",
        readers=_COMPOSE,
        description="A folder of files that say which proxies in front are believed; see gateway.md",
    ),
    Setting(
        name="OTEL_EXPORTER_OTLP_ENDPOINT",
        kind="text",
        default="unset",
        readers=("auth", "envs", "orchestrator", "terminal"),
        description="Where traces go (OTLP), e.g. http://collector.example.com:4318; unset, nowhere",
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
)
