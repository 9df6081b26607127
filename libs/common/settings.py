"""Settings every service has. Nothing reads the environment at import time: `create_app` builds the object."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

DEVELOPMENT_SECRET_KEY = "devpocket-development-secret-key-do-not-use"  # noqa: S105 - refused in production
MIN_SECRET_KEY_CHARS = 32


class Stage(StrEnum):
    """Where the service runs. Production refuses unsafe defaults."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class CommonSettings(BaseSettings):
    """Read from the environment and a `.env` file; names keep the ones operators know."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True)

    environment: Stage = Field(default=Stage.DEVELOPMENT, description="development or production")
    debug: bool = Field(default=False, description="More detail in logs; never in answers")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="What is less important is not logged"
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="A JSON object for each line, or text for people; console in the local stack"
    )

    mongodb_url: SecretStr = Field(
        default=SecretStr("mongodb://127.0.0.1:27017"), description="MongoDB, a replica set; may hold a password"
    )
    database_name: str = Field(
        default="devpocket", pattern=r"^[A-Za-z0-9_-]{1,40}$", description="Prefix of the four databases"
    )
    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"), description="Redis, with persistence; may hold a password"
    )
    nats_url: SecretStr = Field(
        default=SecretStr("nats://127.0.0.1:4222"),
        description="NATS with JetStream: one URL, or several with commas between; may hold a password",
    )
    stream_replicas: int = Field(default=1, ge=1, le=5, description="Replicas of the event stream")
    stream_max_age_days: int = Field(default=30, ge=1, description="How long events are kept, in days")

    otel_exporter_otlp_endpoint: str = Field(
        default="",
        description="Where traces go (OTLP over HTTP), e.g. http://collector:4318; '' records none. The other standard "
        "OTEL_* variables are read too",
    )

    secret_key: SecretStr = Field(
        default=SecretStr(DEVELOPMENT_SECRET_KEY),
        description="Encrypts signing keys, kubeconfigs and environment variables at rest; shared by all services",
    )
    jwks_url: str = Field(
        default="http://127.0.0.1:8001/api/v1/auth/.well-known/jwks.json",
        description="Where auth publishes the keys that tokens are checked with; several replicas with commas between",
    )
    jwt_issuer: str = Field(default="devpocket", description="`iss` of access tokens; the same for all services")
    jwt_audience: str = Field(default="devpocket-api", description="`aud` of access tokens; the same for all services")
    access_token_expire_minutes: int = Field(
        default=30, ge=1, le=24 * 60, description="How long an access token lives, in minutes"
    )

    allowed_origins: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Origins for CORS and WebSockets, with commas between; empty allows same origin only",
    )
    rate_limit_global: str = Field(
        default="100/minute", description="Per user, or per address without a token; '' turns it off"
    )
    rate_limit_auth: str = Field(
        default="5/minute", description="Per address, for login and for register; '' turns it off"
    )
    max_body_bytes: int = Field(default=10 * 1024 * 1024, ge=1024, description="Largest JSON body, in bytes")

    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Serves GET /metrics, and nothing else, on this port too; empty for the service's own port alone",
    )
    metrics_address: str = Field(default="127.0.0.1", description="Where METRICS_PORT listens; 0.0.0.0 for anywhere")

    @field_validator("metrics_port", mode="before")
    @classmethod
    def _none_for_empty(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        if isinstance(value, str):
            return [origin.strip().rstrip("/") for origin in value.split(",") if origin.strip()]
        return value

    @model_validator(mode="after")
    def _refuse_unsafe_production(self) -> Self:
        if self.environment is not Stage.PRODUCTION:
            return self
        key = self.secret_key.get_secret_value()
        if key == DEVELOPMENT_SECRET_KEY or len(key) < MIN_SECRET_KEY_CHARS:
            raise ValueError(
                f"SECRET_KEY must be set to at least {MIN_SECRET_KEY_CHARS} random characters in production, "
                "e.g. from: openssl rand -base64 48"
            )
        if self.debug:
            raise ValueError("DEBUG must be off in production")
        return self
