"""The fake cluster of a run, as a process of its own: `python -m tests.chaos.kube --folder DIR --nodes 4 --pods 10`.

At SIGUSR1 its API server goes away, at SIGUSR2 it is back; pods do not notice. It ends, with all pods, at SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from tests.fakes.kube.cluster import FakeCluster


async def _serve(folder: Path, nodes: int, pods: int) -> None:
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        loop.add_signal_handler(number, told.put_nowait, number)
    async with FakeCluster(folder=folder, pods=pods) as cluster:
        for index in range(2, nodes + 1):
            cluster.add_node(f"node-{index}", pods=str(pods))
        sys.stdout.write(f"{cluster.kubeconfig_path}\n")
        sys.stdout.flush()
        is_away = False
        while True:
            match await told.get():
                case signal.SIGUSR1 if not is_away:
                    is_away = True
                    await cluster.hang_up()
                case signal.SIGUSR2 if is_away:
                    await cluster.listen()
                    is_away = False
                case signal.SIGINT | signal.SIGTERM:
                    return


def main() -> None:
    """The command line. The kubeconfig's path is printed when the cluster is ready."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--pods", type=int, default=500, help="room on each node")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(_serve(given.folder, given.nodes, given.pods))


if __name__ == "__main__":
    main()
