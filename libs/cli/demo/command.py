"""The command: find a stack, or run one for the length of the demo, and show each step."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from libs.cli.options import DATA_DIR, DataDir, Json, fail

Url = Annotated[str | None, typer.Option("--url", help="A running gateway; default: the stack in --data-dir.")]
CaCert = Annotated[
    Path | None,
    typer.Option(
        "--cacert", metavar="FILE", help="Trust these certificates too (PEM). The stack's in --data-dir is known."
    ),
]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="For the stack, when one has to be started.")]


def demo(
    url: Url = None, data_dir: DataDir = DATA_DIR, port: Port = 8000, cacert: CaCert = None, as_json: Json = False
) -> None:
    """Do the main job once: sign in, create, type into a real shell, stop, start, find the file, delete."""
    from libs.cli.demo.scenario import Demo
    from libs.cli.demo.shell import DemoError
    from libs.cli.demo.trust import TrustError, client_context

    reporter = JsonReporter() if as_json else TextReporter()
    started = time.perf_counter()
    try:
        with _gateway(url, data_dir, port, quiet=as_json) as gateway:
            Demo(gateway, reporter, client_context(gateway, data_dir, cacert)).run()
    except TrustError as error:
        fail(str(error))
    except DemoError:
        raise typer.Exit(1) from None
    finally:
        reporter.finished(time.perf_counter() - started)


@contextmanager
def _gateway(url: str | None, data_dir: Path, port: int, *, quiet: bool) -> Iterator[str]:
    """A running gateway's URL; a stack that had to be started is stopped again."""
    from libs.cli.stack.client import stop_stack
    from libs.cli.stack.state import load_stack
    from libs.cli.up import start_in_background

    if url is not None:
        yield url
        return
    stack = load_stack(data_dir)
    if stack is not None and stack.alive:
        yield stack.url
        return
    start_in_background(data_dir, port, (lambda _: None) if quiet else typer.echo)
    stack = load_stack(data_dir)
    if stack is None:
        fail("the stack that was started has left no record")
    try:
        yield stack.url
    finally:
        stop_stack(stack)


class TextReporter:
    """A line a step, as it ends."""

    def started(self, step: str) -> None:
        """Nothing: a step takes milliseconds, and one line each is easier to read."""

    def passed(self, step: str, duration_ms: float, detail: str) -> None:
        """It worked."""
        typer.echo(f"✓ {step:<32} {duration_ms:>8.0f} ms   {detail}".rstrip())

    def failed(self, step: str, duration_ms: float, error: str) -> None:
        """It did not."""
        typer.echo(f"✗ {step:<32} {duration_ms:>8.0f} ms   {error}", err=True)

    def finished(self, duration_s: float) -> None:
        """The end."""
        typer.echo(f"demo ended after {duration_s:.1f} s")


class JsonReporter:
    """One array of {step, passed, duration_ms, detail} at the end."""

    def __init__(self) -> None:
        self._steps: list[dict[str, object]] = []

    def started(self, step: str) -> None:
        """Nothing to tell yet."""

    def passed(self, step: str, duration_ms: float, detail: str) -> None:
        """It worked."""
        self._add(step, duration_ms, detail, passed=True)

    def failed(self, step: str, duration_ms: float, error: str) -> None:
        """It did not."""
        self._add(step, duration_ms, error, passed=False)

    def finished(self, duration_s: float) -> None:
        """The end."""
        typer.echo(json.dumps(self._steps))

    def _add(self, step: str, duration_ms: float, detail: str, *, passed: bool) -> None:
        self._steps.append({"step": step, "passed": passed, "duration_ms": round(duration_ms, 1), "detail": detail})
