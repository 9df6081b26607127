"""What the terminal service tells Prometheus beside what every service does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from prometheus_client import Counter

from libs.common.metrics.families import Family, Values
from libs.common.metrics.registry import Metrics
from libs.runtime.fleet import FleetExec
from libs.runtime.holder.held import HoldTerms
from libs.runtime.holder.shells import HolderMissingError, Shell
from libs.runtime.port import DriverError, ExecStream, RuntimeUnavailableError, TerminalSize, WorkspaceRef
from services.terminal.service.sessions import Sessions

_SESSIONS = Family("devpocket_terminal_sessions", "Shells that this replica serves, attached or detached.", ("state",))
_BYTES = Family(
    "devpocket_terminal_bytes_total",
    "Bytes typed into shells (in) and put out by them (out).",
    ("direction",),
    "counter",
)


def describe_sessions(metrics: Metrics, sessions: Sessions) -> None:
    """Shells and their traffic, read when somebody asks: a key stroke pays nothing for it."""

    def read() -> Values:
        attached = sessions.attached
        typed, put_out = sessions.traffic()
        return {
            _SESSIONS.name: {("attached",): attached, ("detached",): len(sessions) - attached},
            _BYTES.name: {("in",): typed, ("out",): put_out},
        }

    metrics.read([_SESSIONS, _BYTES], read)


class ExecCounter:
    """Counts processes started in workspaces."""

    def __init__(self, metrics: Metrics) -> None:
        self._execs = Counter(
            "devpocket_execs_total",
            "Processes started in workspaces, by kind (shell, command, file) and outcome: started, refused (the "
            "workspace does not run), unavailable (the runtime cannot be reached), failed.",
            ("kind", "outcome"),
            registry=metrics.registry,
        )

    def counting(self, runtime: FleetExec, kind: str) -> CountedExec:
        """The runtime as one use case has it."""
        return CountedExec(runtime, kind, self._execs)


class CountedExec(FleetExec):
    """A fleet that counts what is started through it."""

    def __init__(self, runtime: FleetExec, kind: str, execs: Counter) -> None:
        super().__init__(runtime.fleet, runtime.refresh)
        self._kind = kind
        self._execs = execs

    async def exec(
        self,
        ref: WorkspaceRef,
        argv: Sequence[str] | None = None,
        *,
        tty: bool = True,
        size: TerminalSize = TerminalSize(),  # noqa: B008 - frozen
        env: Mapping[str, str] | None = None,
    ) -> ExecStream:
        """See the port."""
        with self._counted():
            return await super().exec(ref, argv, tty=tty, size=size, env=env)

    async def start_shell(self, ref: WorkspaceRef, session_id: str, size: TerminalSize, terms: HoldTerms) -> Shell:
        """See ShellRuntime."""
        with self._counted():
            return await super().start_shell(ref, session_id, size, terms)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        outcome: str | None = "failed"
        try:
            yield
            outcome = "started"
        except HolderMissingError:
            # It is started in another way, which is counted.
            outcome = None
            raise
        except RuntimeUnavailableError:
            outcome = "unavailable"
            raise
        except DriverError:
            outcome = "refused"
            raise
        finally:
            if outcome is not None:
                self._execs.labels(self._kind, outcome).inc()
