"""The settings that services of the local stack get: what the operator says, then what the stack adds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from libs.cli.stack.certificates import PREVIEW_HOST
from libs.cli.stack.credentials import Credentials
from libs.cli.stack.paths import StackPaths

# Everything an operator may set; see .env.example. A variable outside this list still reaches the services through
# their inherited environment, it is only not recorded for commands that join the stack later.
KNOWN = (
    *("MONGODB_URL", "DATABASE_NAME", "REDIS_URL", "NATS_URL", "SECRET_KEY", "ENVIRONMENT", "DEBUG"),
    *("LOG_LEVEL", "LOG_FORMAT", "ALLOWED_ORIGINS", "ACCESS_TOKEN_EXPIRE_MINUTES", "RATE_LIMIT_GLOBAL"),
    *("RATE_LIMIT_AUTH", "MAX_BODY_BYTES", "REQUIRE_EMAIL_VERIFICATION", "RUNTIME", "KUBECONFIG"),
    *("GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET", "GOOGLE_CERTS_URL", "ADMIN_EMAIL", "ADMIN_PASSWORD"),
    *("PUBLIC_URL", "SMTP_URL", "MAIL_FROM", "MAIL_FOLDER", "VERIFY_LINK_HOURS", "RESET_LINK_MINUTES"),
    "AUDIT_RETENTION_DAYS",
    *("OTEL_EXPORTER_OTLP_ENDPOINT", "JWKS_URL", "JWT_ISSUER", "JWT_AUDIENCE", "STREAM_REPLICAS"),
    *("STREAM_MAX_AGE_DAYS", "LOCAL_RUNTIME_DIR", "LOCAL_RUNTIME_ISOLATION", "REGION_NAME", "KUBERNETES_CONTEXT"),
    "LOCAL_RUNTIME_BLOCKED_CIDRS",
    *("KUBERNETES_NAMESPACE_PREFIX", "KUBERNETES_IMAGE_PULL_POLICY", "KUBERNETES_STORAGE_CLASS"),
    *("KUBERNETES_RUNTIME_CLASS", "KUBERNETES_BLOCKED_CIDRS", "CLUSTER_OPERATIONS", "CLUSTER_CHECK_SECONDS"),
    *("TEMPLATE_IMAGE_PREFIX", "TEMPLATE_IMAGES", "TEMPLATE_PULL_POLICY"),
    *("PREVIEW_ORIGIN", "PREVIEW_LIFE_SECONDS", "PREVIEW_ANSWER_SECONDS", "PREVIEW_REQUESTS_PER_USER"),
    *("GATEWAY_RATE_LIMIT", "GATEWAY_CONNECTION_LIMIT", "GATEWAY_TLS_CERT", "GATEWAY_TLS_KEY"),
    "ENVIRONMENT_OVERDUE_SECONDS",
)


class SettingError(ValueError):
    """A setting makes no sense; the text says which and what would."""


def operator_settings(environment: Mapping[str, str], env_file: Path) -> dict[str, str]:
    """What the operator has set: the `.env` file, overruled by the environment. Empty counts as set."""
    from dotenv import dotenv_values

    from_file = {name: value for name, value in dotenv_values(env_file).items() if value is not None}
    from_environment = {name: environment[name] for name in (*KNOWN, *from_file) if name in environment}
    return {**from_file, **from_environment}


def stack_settings(
    operator: Mapping[str, str],
    connections: Mapping[str, str],
    credentials: Credentials,
    paths: StackPaths,
    *,
    jwks_url: str,
    public_url: str,
) -> dict[str, str]:
    """The full settings. `connections` are the URLs of the servers that this stack runs itself."""
    defaults = {
        "SECRET_KEY": credentials.secret_key,
        "ENVIRONMENT": "development",
        "LOG_FORMAT": "console",
        "RUNTIME": "local",
        "LOCAL_RUNTIME_DIR": str(paths.runtime),
        "JWKS_URL": jwks_url,
        "PUBLIC_URL": public_url,
        "MAIL_FOLDER": str(paths.mails),
    }
    if not operator.get("PUBLIC_URL"):
        # Browsers lead every name below localhost to this machine, so each environment has an origin of its own.
        url = urlsplit(public_url)
        host = PREVIEW_HOST if url.scheme == "https" else "*.localhost"
        defaults["PREVIEW_ORIGIN"] = f"{url.scheme}://{host}:{url.port}"
    # An empty SECRET_KEY or RUNTIME= left over in a .env file is not a choice; an empty rate limit is one.
    chosen = {name: value for name, value in operator.items() if value or name not in defaults}
    # A port that is one service's cannot be that of four; here metrics are on the services' own ports.
    return {**defaults, **chosen, **connections, "METRICS_PORT": ""}


def gateway_limits(operator: Mapping[str, str], rate: int, connections: int) -> tuple[int, int]:
    """Requests per second and at a time, per address; the numbers given are the defaults. 0 is no limit.

    Who turns the services' limit off means the gateway's as well. Raises SettingError.
    """
    off = operator.get("RATE_LIMIT_GLOBAL") == ""
    return (
        _number(operator, "GATEWAY_RATE_LIMIT", 0 if off else rate),
        _number(operator, "GATEWAY_CONNECTION_LIMIT", 0 if off else connections),
    )


def _number(operator: Mapping[str, str], name: str, default: int) -> int:
    text = operator.get(name) or str(default)
    if not text.isdecimal():
        raise SettingError(f"{name} is {text!r}; it is a number, 0 for no limit")
    return int(text)


def with_inherited(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a service process."""
    return {**os.environ, **settings, "PYTHONUNBUFFERED": "1"}
