"""The life of one workspace, told as JSON: run by tests as another user, with an interpreter that user may use.

Arguments: a directory, and a value of LOCAL_RUNTIME_ISOLATION.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

from libs.runtime.local.isolation import IsolationPolicy
from libs.runtime.local.runtime import LocalRuntime
from libs.runtime.port import RuntimeUnavailableError
from tests.runtime_contract.workspaces import Workspaces, collect_logs, make_spec, new_mark, read_all, read_until

_GREET = """
import socket
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
listening.accept()[0].sendall(b"hello")
"""


async def live(directory: Path, policy: IsolationPolicy) -> dict[str, object]:
    """Start, look around, stop, start again, delete."""
    runtime = LocalRuntime(directory, policy)
    try:
        await runtime.open()
    except RuntimeUnavailableError as error:
        return {"unavailable": str(error)}
    workspaces = Workspaces(runtime)
    spec = make_spec(variables={"TOKEN": "abc"}, startup_command="echo started")
    ref = await workspaces.start(spec)
    await collect_logs(runtime.logs(ref, follow=True), "started")
    look = "id -u; grep CapEff /proc/self/status; set -- /proc/[0-9]*; echo $#; echo $TOKEN; echo kept > file"
    _, out, err = await workspaces.run(ref, look)
    mark = new_mark()
    terminal = await runtime.exec(ref, ["sh", "-c", f"stty size; tty; trap '' HUP; sleep {mark} & exit 5"])
    said = await read_all(terminal)
    code = await terminal.wait()
    await terminal.close()
    left = (await workspaces.run(ref, f"ps -eo args | grep -c '[s]leep {mark}'"))[1]
    stats = await runtime.stats(ref)
    greeter = await runtime.exec(ref, ["python3", "-c", _GREET], tty=False)
    port = int(await read_until(greeter, b"\n"))
    listed = [found.port for found in await runtime.ports(ref)]
    connection = await runtime.connect(ref, port)
    greeting = await connection.read()
    await connection.close()
    await greeter.close()
    await runtime.stop(ref)
    await runtime.ensure(replace(spec, generation=2))
    kept = (await workspaces.run(ref, "cat file; chmod 500 ."))[1]
    await runtime.delete(ref)
    result = {
        "look": out.decode().split("\n"),
        "errors": err.decode(),
        "terminal": said.decode(),
        "code": code,
        "left": int(left),
        "kept": kept.decode(),
        "port": [listed == [port], greeting.decode()],
        "memory": stats.memory_bytes,
        "leftovers": list(await runtime.leftovers()),
        "files": len(await runtime.list()),
    }
    await runtime.close()
    return result


if __name__ == "__main__":
    print(json.dumps(asyncio.run(live(Path(sys.argv[1]), IsolationPolicy(sys.argv[2])))))  # noqa: T201
