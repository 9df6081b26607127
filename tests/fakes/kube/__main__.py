"""The fake cluster as a process of its own: `python -m tests.fakes.kube --kubeconfig-out FILE`."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
from pathlib import Path

from tests.fakes.kube.cluster import WORKSPACE_IMAGES, FakeCluster
from tests.fakes.kube.faults import FaultPlan
from tests.fakes.kube.node.images import workspace_image
from tests.fakes.kube.node.sandbox import bubblewrap


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.kube", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 finds a free one")
    parser.add_argument("--kubeconfig-out", type=Path, required=True, help="where to write the kubeconfig")
    parser.add_argument("--folder", type=Path, help="where volumes are kept (default: a temporary folder)")
    parser.add_argument("--image", action="append", default=[], help="another image that can be pulled (repeatable)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--errors", type=float, default=0.0, help="share of calls that fail")
    parser.add_argument("--latency", type=float, default=0.0, help="answers take up to so many seconds longer")
    parser.add_argument("--watch-seconds", type=float, help="watches end after about so long")
    parser.add_argument("--gone", type=float, default=0.0, help="share of resumed watches that are told 410")
    parser.add_argument("--metrics", choices=("on", "missing", "unavailable"), default="on")
    parser.add_argument("--cpu", default="64", help="of the node")
    parser.add_argument("--memory", default="256Gi", help="of the node")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    faults = FaultPlan(
        seed=arguments.seed,
        rate=arguments.errors,
        latency=arguments.latency,
        watch_seconds=arguments.watch_seconds,
        gone_rate=arguments.gone,
    )
    cluster = FakeCluster(
        port=arguments.port,
        folder=arguments.folder,
        faults=faults,
        cpu=arguments.cpu,
        memory=arguments.memory,
        images={name: workspace_image() for name in (*WORKSPACE_IMAGES, *arguments.image)},
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with cluster:
        cluster.set_metrics(arguments.metrics)
        shutil.copyfile(cluster.kubeconfig_path, arguments.kubeconfig_out)
        arguments.kubeconfig_out.chmod(0o600)
        kind = "bubblewrap" if bubblewrap() else "plain processes"
        sys.stdout.write(f"fake cluster ready at {cluster.url} ({kind})\n")
        sys.stdout.flush()
        await stop.wait()
    sys.stderr.write(f"fake cluster stopped; injected faults: {faults.injected}\n")


if __name__ == "__main__":
    asyncio.run(_serve(_arguments()))
