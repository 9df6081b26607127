"""Settings without a class: what `devpocket up` and docker compose read beside the settings of the services."""

from __future__ import annotations

from libs.common.settings_page import Setting

_UP = ("devpocket up",)
_COMPOSE = ("docker compose",)

OTHER_SETTINGS = (
    Setting(
        name="GATEWAY_RATE_LIMIT",
        kind="whole number (per second)",
        default="`100`",
        readers=_UP,
        description="What the gateway lets through for each address; 0, or an empty RATE_LIMIT_GLOBAL, is no limit",
        bounds="≥ 0",
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
