"""The seam to `devpocket events replay`: each service's read model, rebuilt from the stream, against the live one."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from tests.chaos.ledger import DRIFT, Violation
from tests.chaos.stack import SERVICE_NAMES

_TIMEOUT_S = 300.0


async def drift(data_dir: Path) -> list[Violation]:
    """One violation per field that differs between the live database and a fresh replay. The stack must be at rest.

    Raises RuntimeError when the replay itself fails.
    """
    found: list[Violation] = []
    for service in SERVICE_NAMES:
        for field in (await _replayed(data_dir, service))["drift"]:
            where = f"{service}.{field['collection']}.{field['field']}"
            what = f"{where} is {field['live']!r} live and {field['replayed']!r} replayed"
            found.append(Violation(DRIFT, str(field["id"]), what))
    return found


async def available(data_dir: Path) -> bool:
    """Whether this devpocket can replay."""
    return (await _devpocket(data_dir, "events", "replay", "--help"))[0] == 0


async def _replayed(data_dir: Path, service: str) -> dict[str, Any]:
    into = ("--service", service, "--into", f"chaos_replay_{service}", "--diff", "--json")
    code, output, errors = await _devpocket(data_dir, "events", "replay", *into, "--data-dir", str(data_dir))
    try:
        answer: dict[str, Any] = json.loads(output)
    except ValueError as error:
        raise RuntimeError(f"replay of {service} ended with {code}: {errors or output}") from error
    return answer


async def _devpocket(data_dir: Path, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "libs.cli.main", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(_TIMEOUT_S):
        output, errors = await process.communicate()
    return process.returncode or 0, output.decode(), errors.decode(errors="replace").strip()
