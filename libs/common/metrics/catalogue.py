"""All metrics of all services, as a table and as the names that rules may use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import Metric

from libs.common.metrics.registry import Metrics

_SERIES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "info": ("_info",),
}


def series_names(metrics: Metrics) -> set[str]:
    """What Prometheus calls the series of a service."""
    return {family.name + suffix for family in metrics.families() for suffix in _SERIES.get(family.type, ("",))}


def table(services: Mapping[str, Metrics]) -> str:
    """Markdown: each metric once, with the services that have it."""
    found: dict[str, tuple[Metric, list[str]]] = {}
    for service, metrics in services.items():
        for family in metrics.families():
            _, of = found.setdefault(family.name, (family, []))
            if service not in of:
                of.append(service)
    lines = ["| metric | type | of | meaning |", "| --- | --- | --- | --- |"]
    for name in sorted(found, key=lambda name: (not name.startswith("devpocket"), name)):
        family, of = found[name]
        whose = "all" if len(of) == len(services) else _joined(of)
        lines.append(f"| `{_shown(family)}` | {family.type} | {whose} | {family.documentation} |")
    return "\n".join(lines) + "\n"


def _shown(family: Metric) -> str:
    suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
    return family.name + suffix


def _joined(services: Iterable[str]) -> str:
    return ", ".join(services)
