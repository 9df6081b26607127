"""Puts the service together: adapters, then use cases."""

from __future__ import annotations

from dataclasses import dataclass

from libs.common.messaging.outbox import OutboxRelay
from libs.common.metrics.registry import Metrics
from libs.common.mongo import Database
from libs.common.security.sealing import Sealer
from services.envs.metrics import describe_environments, failure_counter
from services.envs.repository import (
    AccountRepository,
    ClusterRepository,
    DepartureRepository,
    EnvironmentRepository,
    MetricsRepository,
    TemplateRepository,
)
from services.envs.service.accounts import AccountService
from services.envs.service.environments import EnvironmentService
from services.envs.service.owners import OwnerService
from services.envs.service.regions import RegionService
from services.envs.service.reports import ReportService
from services.envs.service.templates import TemplateService
from services.envs.service.usage import UsageService
from services.envs.settings import EnvsSettings

# Orchestrator and terminal open what is sealed here, so the purpose is part of the contract.
VARIABLES_PURPOSE = "environment-variables"


@dataclass(frozen=True, slots=True)
class UseCases:
    """Everything this service can do, on one database."""

    environments: EnvironmentService
    templates: TemplateService
    owners: OwnerService
    regions: RegionService
    reports: ReportService
    usage: UsageService
    _stores: tuple[EnvironmentRepository, MetricsRepository]

    async def prepare(self) -> None:
        """Indexes, the templates that every installation has, and what the settings say of their images."""
        for store in self._stores:
            await store.create_indexes()
        await self.templates.seed()
        await self.templates.apply_settings()


def build(
    settings: EnvsSettings, database: Database, relay: OutboxRelay | None, metrics: Metrics | None = None
) -> UseCases:
    """`relay` publishes what is written; None for tools that change no environment, and of which nobody is told."""
    environments = EnvironmentRepository(database, relay)
    if metrics is not None:
        describe_environments(metrics, environments, overdue_after_s=settings.environment_overdue_seconds)
    usage = MetricsRepository(database)
    accounts = AccountService(AccountRepository(database))
    owners = OwnerService(environments, accounts, DepartureRepository(database, relay))
    regions = RegionService(ClusterRepository(database))
    templates = TemplateService(
        TemplateRepository(database),
        environments,
        image_prefix=settings.template_image_prefix,
        images=settings.template_images,
        pull_policies=settings.template_pull_policy,
    )
    return UseCases(
        environments=EnvironmentService(
            environments,
            templates,
            accounts,
            regions,
            Sealer(settings.secret_key.get_secret_value(), VARIABLES_PURPOSE),
            verified_only=settings.require_email_verification,
        ),
        templates=templates,
        owners=owners,
        regions=regions,
        reports=ReportService(
            environments, owners=owners, on_failed=failure_counter(metrics) if metrics is not None else lambda _: None
        ),
        usage=UsageService(environments, usage),
        _stores=(environments, usage),
    )
