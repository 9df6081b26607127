"""What so many users need: `python -m tests.bench.sizing --users 1000000 --active-share 0.05`. See docs/scaling.md."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

_DAY_S = 86_400
# A process is one event loop. Above this share of a core its answers get slow.
_BUSY_AT_MOST = 0.6
_GIB = 1024**3


@dataclass(frozen=True)
class Assumptions:
    """What users do. Rates are averages of a day; `peak` is how many times as much happens in the busiest hour."""

    users: float = 1_000_000
    active_share: float = 0.05
    environments_per_user: float = 1.2
    sessions_per_active: float = 1.5
    keystrokes_per_s: float = 0.5
    requests_per_active_s: float = 0.1
    lifecycles_per_user_day: float = 0.3
    logins_per_user_day: float = 0.2
    peak: float = 4.0
    resync_s: float = 30.0
    usage_s: float = 5.0
    pods_per_cluster: float = 10_000
    users_per_cluster: float = 50_000


@dataclass(frozen=True)
class Costs:
    """Measured; docs/scaling.md says how and when. CPU in milliseconds of a core, sizes in bytes."""

    request_ms: float = 1.3
    login_ms: float = 223.0
    keystroke_ms: float = 0.5
    session_bytes: float = 58.2 * 1024
    envs_lifecycle_ms: float = 17.1
    orchestrator_lifecycle_ms: float = 14.8
    auth_lifecycle_ms: float = 6.2
    terminal_lifecycle_ms: float = 5.1
    look_ms: float = 1.8
    envs_sample_ms: float = 1.2
    orchestrator_sample_ms: float = 0.5
    events_per_lifecycle: float = 4.0
    event_bytes: float = 889.0
    operations_per_lifecycle: float = 30.0
    operations_per_look: float = 3.0
    operations_per_sample: float = 3.0
    environment_bytes: float = 692.0 + 891.0 + 218.0
    metrics_bytes_per_running: float = 960_000.0
    audit_bytes: float = 349.0


def demands(a: Assumptions, c: Costs) -> dict[str, float]:
    """What there is at the busiest hour, by name with its unit."""
    active = a.users * a.active_share
    environments = a.users * a.environments_per_user
    lifecycles = a.users * a.lifecycles_per_user_day / _DAY_S * a.peak
    logins = a.users * a.logins_per_user_day / _DAY_S * a.peak
    looks, samples = environments / a.resync_s, active / a.usage_s
    sessions = active * a.sessions_per_active
    events_day = a.users * (a.lifecycles_per_user_day * c.events_per_lifecycle + a.logins_per_user_day)
    events_day += 2 * a.users * a.lifecycles_per_user_day * a.sessions_per_active
    deeds_day = a.users * (a.lifecycles_per_user_day + a.logins_per_user_day)
    return {
        "running environments": active,
        "environments": environments,
        "open sessions": sessions,
        "keystrokes/s": active * a.keystrokes_per_s,
        "requests/s": active * a.requests_per_active_s,
        "lifecycles/s": lifecycles,
        "logins/s": logins,
        "looks/s": looks,
        "samples/s": samples,
        "events/s": events_day / _DAY_S * a.peak,
        "stream GiB, 30 days": events_day * 30 * c.event_bytes / _GIB,
        "MongoDB operations/s": lifecycles * c.operations_per_lifecycle
        + looks * c.operations_per_look
        + samples * c.operations_per_sample
        + active * a.requests_per_active_s * 2
        + logins * 6,
        "MongoDB GiB": (environments * c.environment_bytes + active * c.metrics_bytes_per_running) / _GIB
        + deeds_day * 365 * c.audit_bytes / _GIB,
        "terminal GiB": sessions * c.session_bytes / _GIB,
    }


def cores(a: Assumptions, c: Costs) -> dict[str, float]:
    """Cores that each service keeps busy at the busiest hour."""
    d = demands(a, c)
    busy_ms = {
        "auth": d["logins/s"] * c.login_ms + d["lifecycles/s"] * c.auth_lifecycle_ms,
        "envs": d["requests/s"] * c.request_ms
        + d["lifecycles/s"] * c.envs_lifecycle_ms
        + d["samples/s"] * c.envs_sample_ms,
        "orchestrator": d["lifecycles/s"] * c.orchestrator_lifecycle_ms
        + d["looks/s"] * c.look_ms
        + d["samples/s"] * c.orchestrator_sample_ms,
        "terminal": d["keystrokes/s"] * c.keystroke_ms + d["lifecycles/s"] * c.terminal_lifecycle_ms,
    }
    return {name: value / 1000 for name, value in busy_ms.items()}


def replicas(a: Assumptions, c: Costs, *, least: int = 2) -> dict[str, int]:
    """Processes of each service, and clusters of workspaces."""
    needed = {name: max(least, math.ceil(value / _BUSY_AT_MOST)) for name, value in cores(a, c).items()}
    clusters = max(a.users * a.active_share / a.pods_per_cluster, a.users / a.users_per_cluster)
    return {**needed, "clusters": max(1, math.ceil(clusters))}


def table(a: Assumptions, c: Costs, users: Mapping[str, float], tuned: Mapping[str, tuple[float, float]]) -> str:
    """Markdown; `tuned`: seconds between looks and between samples, by column."""
    columns = {
        name: replace(a, users=count, resync_s=tuned[name][0], usage_s=tuned[name][1]) for name, count in users.items()
    }
    rows = [f"| | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    rows.append(_row("`RESYNC_INTERVAL_SECONDS`", [f"{each.resync_s:,.0f}" for each in columns.values()]))
    rows.append(_row("`METRICS_INTERVAL_SECONDS`", [f"{each.usage_s:,.0f}" for each in columns.values()]))
    wanted = {name: demands(each, c) for name, each in columns.items()}
    names = list(next(iter(wanted.values())))
    rows += [_row(what, [_short(found[what]) for found in wanted.values()]) for what in names]
    needed = {name: replicas(each, c) for name, each in columns.items()}
    names = list(next(iter(needed.values())))
    rows += [_row(f"**{what}**", [f"**{found[what]:,}**" for found in needed.values()]) for what in names]
    return "\n".join(rows)


USERS = {"1k": 1e3, "10k": 1e4, "100k": 1e5, "1M": 1e6}
TUNED = {"1k": (30.0, 5.0), "10k": (60.0, 15.0), "100k": (600.0, 30.0), "1M": (3600.0, 60.0)}


def _row(what: str, values: list[str]) -> str:
    return f"| {what} | {' | '.join(values)} |"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def main() -> int:
    """The table of docs/scaling.md, or one column of your own numbers."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sizing")
    for name in fields(Assumptions):
        parser.add_argument(f"--{name.name.replace('_', '-')}", type=float, help=f"default {name.default}")
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    if not given:
        print(table(Assumptions(), Costs(), USERS, TUNED))
        return 0
    mine = replace(Assumptions(), **given)
    print(table(mine, Costs(), {"yours": mine.users}, {"yours": (mine.resync_s, mine.usage_s)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
