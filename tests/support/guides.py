"""Runs what a page of the API guide shows: all blocks of one language as one program, in the order of the page."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.markdown import Block, blocks, differences

# What the pages say, and what it stands for.
_ORIGIN = "127.0.0.1:8000"
_USER = re.compile(r"\bada\b")

_MARK = "\x1e"
_TIMEOUT_S = 100.0
# Where Debian keeps modules of its own packages.
_DEBIAN_MODULES = "/usr/share/nodejs"


class Guide:
    """One page, against the gateway at `url`, as a user whom no other run has. `prelude` comes before what it shows."""

    def __init__(self, page: Path, url: str, folder: Path, prelude: str = "") -> None:
        self._page = page
        self._prelude = prelude
        self._origin = url.removeprefix("http://")
        self._user = f"ada-{secrets.token_hex(4)}"
        self._folder = folder

    def of(self, language: str) -> list[Block]:
        """The page's blocks of one language, with what the examples stand for put in."""
        shown = [*blocks(self._prelude), *blocks(self._page.read_text())]
        return [block.read_as(self._real) for block in shown if block.language == language]

    async def bash(self) -> tuple[list[Block], list[str]]:
        """The `bash` blocks, and what each prints."""
        shown = self.of("bash")
        script = "\n".join(["set -eu", *(f"printf '{_MARK}'\n{block.text}" for block in shown)])
        return await self._run(["bash", "-c", script], shown)

    async def javascript(self) -> tuple[list[Block], list[str]]:
        """The `js` blocks, and what each prints."""
        shown = self.of("js")
        file = self._folder / "page.mjs"
        file.write_text("\n".join(f"process.stdout.write('{_MARK}');\n{block.text}" for block in shown))
        found = node_options()
        assert found is not None, "there is no node that knows WebSocket"
        options, environment = found
        return await self._run(["node", *options, str(file)], shown, environment)

    async def dart(self) -> tuple[list[Block], list[str]]:
        """The `dart` blocks, and what each prints."""
        shown = self.of("dart")
        file = self._folder / "page.dart"
        file.write_text(dart_program(shown))
        return await self._run(["dart", "run", str(file)], shown)

    def _real(self, text: str) -> str:
        return _USER.sub(self._user, text.replace(_ORIGIN, self._origin))

    @asynccontextmanager
    async def talking(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """The `bash` blocks while they run; the last one may ask for input."""
        script = "\n".join(["set -eu", *(block.text for block in self.of("bash"))])
        async with self._started(["bash", "-c", script]) as process:
            yield process

    async def _run(
        self, argv: Sequence[str], shown: list[Block], environment: Mapping[str, str] | None = None
    ) -> tuple[list[Block], list[str]]:
        async with self._started(argv, environment) as process:
            out, errors = await process.communicate()
        outputs = out.decode().split(_MARK)[1:]
        where = f"{self._page.name}, line {shown[len(outputs) - 1].line}" if outputs else self._page.name
        assert process.returncode == 0, f"{where}:\n{out.decode()}\n{errors.decode()}"
        return shown, outputs

    @asynccontextmanager
    async def _started(
        self, argv: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Ended with the block, and before its test is. Pages name programs of this project's .venv."""
        link = self._folder / ".venv"
        if not link.exists():
            link.symlink_to(Path(sys.executable).parents[1])
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=self._folder,
            env={**os.environ, **(environment or {})},
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
        )
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def section(page: Path, title: str) -> str:
    """What is below a heading of the second level. Raises ValueError."""
    _, found, rest = page.read_text().partition(f"\n## {title}\n")
    if not found:
        raise ValueError(f"{page.name} has no section {title!r}")
    return rest.partition("\n## ")[0]


def wrong(shown: Sequence[Block], outputs: Sequence[str]) -> list[str]:
    """Where the page shows other answers than those that came."""
    return [
        f"line {block.answer.line}: {difference}"
        for block, output in zip(shown, outputs, strict=True)
        if block.answer is not None
        for difference in differences(block.answer, output)
    ]


def dart_program(shown: Sequence[Block]) -> str:
    """Blocks with imports or classes stand at the top, all others in `main`."""
    top: list[str] = []
    main: list[str] = []
    for block in shown:
        main.append(f"print('{_MARK}');")
        at_top = re.search(r"^(import|class) ", block.text, re.MULTILINE)
        (top if at_top else main).append(block.text)
    return "\n".join([*top, "Future<void> main() async {", *main, "exit(0);", "}"])


def has_dart() -> bool:
    """Whether there is a Dart SDK."""
    return shutil.which("dart") is not None


@functools.cache
def node_options() -> tuple[list[str], dict[str, str]] | None:
    """Options and environment with which node has the WebSocket that browsers have; None without a node that can.

    It has one by itself from version 22 on, before by a flag, and Debian's version 18 by the package node-ws.
    """
    ways: list[tuple[list[str], dict[str, str]]] = [
        ([], {}),
        (["--experimental-websocket", "--no-warnings"], {}),
        (["--require", str(Path(__file__).with_name("browser.cjs"))], {"NODE_PATH": _DEBIAN_MODULES}),
    ]
    return next((way for way in ways if _has_websocket(*way)), None)


def _has_websocket(options: list[str], environment: dict[str, str]) -> bool:
    if shutil.which("node") is None:
        return False
    argv = ["node", *options, "--eval", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"]
    return subprocess.run(argv, env={**os.environ, **environment}, capture_output=True, check=False).returncode == 0
