"""MongoDB adapters: queries, conditional writes, indexes."""

from __future__ import annotations

from services.envs.repository.accounts import AccountRepository
from services.envs.repository.clusters import ClusterRepository
from services.envs.repository.departures import DepartureRepository
from services.envs.repository.environments import EnvironmentRepository
from services.envs.repository.metrics import MetricsRepository
from services.envs.repository.templates import TemplateRepository

__all__ = [
    "AccountRepository",
    "ClusterRepository",
    "DepartureRepository",
    "EnvironmentRepository",
    "MetricsRepository",
    "TemplateRepository",
]
