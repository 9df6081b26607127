"""Starts processes in pods, ends what they leave behind, and connects to their ports."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence

import aiohttp

from libs.runtime.kubernetes.api import KubeApi
from libs.runtime.kubernetes.channels import KILLED, STATUS, STDOUT, Ending
from libs.runtime.kubernetes.errors import ApiError, ApiUnreachableError, driver_error
from libs.runtime.kubernetes.forwarding import KubernetesByteStream
from libs.runtime.kubernetes.mapping import is_over, is_ready
from libs.runtime.kubernetes.names import check_ref, namespace_of, workspace_name
from libs.runtime.kubernetes.options import KubernetesOptions
from libs.runtime.kubernetes.scripts import Session, starting
from libs.runtime.kubernetes.session import KubernetesExecStream
from libs.runtime.kubernetes.sockets import Sockets
from libs.runtime.kubernetes.variables import check_variables
from libs.runtime.listening import listeners, reachable_ports
from libs.runtime.port import (
    DriverError,
    ListeningPort,
    RuntimeUnavailableError,
    TerminalSize,
    WorkspaceNotFoundError,
    WorkspaceNotRunningError,
    WorkspaceRef,
)

log = logging.getLogger(__name__)

# Hanging up takes half a second, killing two at most.
_END_S = 5.0
_PORTS_S = 10.0
_ANSWER_BYTES = 64 * 1024
# Of what may be a long list of connections, those that wait for some. Any image has a shell.
_LISTENING = (
    "for table in /proc/net/tcp /proc/net/tcp6; do "
    'while read -r line; do case $line in *" 0A "*) echo "$line";; esac; done < $table; done'
)


class Execution:
    """Exec in the pods of one cluster."""

    def __init__(self, api: KubeApi, sockets: Sockets, options: KubernetesOptions) -> None:
        self._api = api
        self._sockets = sockets
        self._options = options
        self._streams: set[KubernetesExecStream | KubernetesByteStream] = set()

    async def start(
        self,
        ref: WorkspaceRef,
        argv: Sequence[str] | None,
        *,
        tty: bool,
        size: TerminalSize,
        environment: Mapping[str, str],
    ) -> KubernetesExecStream:
        """See `ExecRuntime.exec`."""
        check_ref(ref)
        check_variables(environment)
        namespace, pod = self._place(ref)
        mark = secrets.token_hex(8)
        command = starting(mark, argv, size if tty else None, environment)
        try:
            socket = await self._sockets.open(namespace, pod, command, tty=tty)
        except ApiError as error:
            await self._explain_absence(ref)
            raise _refusal(error, "to start a process in the workspace") from error
        except ApiUnreachableError as error:
            raise driver_error(error) from error

        async def end_session(session: Session) -> None:
            await self._end(namespace, pod, session)

        stream = KubernetesExecStream(
            socket,
            mark,
            tty=tty,
            ping_s=self._options.exec_ping_s,
            dead_s=self._options.exec_dead_s,
            end_session=end_session,
            on_close=self._streams.discard,
        )
        self._streams.add(stream)
        try:
            await stream.start(size)
        except RuntimeUnavailableError:
            # Some servers upgrade first and tell afterwards that there is no container.
            await self._explain_absence(ref)
            raise
        return stream

    async def answer(self, ref: WorkspaceRef, argv: Sequence[str], seconds: float) -> tuple[int, bytes]:
        """Run a small program to its end: its exit code and the beginning of what it printed."""
        namespace, pod = self._place(ref)
        return await self._run(namespace, pod, argv, seconds)

    async def connect(self, ref: WorkspaceRef, port: int) -> KubernetesByteStream:
        """See `ExecRuntime.connect`."""
        check_ref(ref)
        namespace, pod = self._place(ref)
        try:
            socket = await self._sockets.forward(namespace, pod, port)
        except ApiError as error:
            await self._explain_absence(ref)
            raise _refusal(error, "to connect to the workspace") from error
        except ApiUnreachableError as error:
            raise driver_error(error) from error
        options = self._options
        stream = KubernetesByteStream(
            socket, port, ping_s=options.exec_ping_s, dead_s=options.exec_dead_s, on_close=self._streams.discard
        )
        self._streams.add(stream)
        return stream

    async def ports(self, ref: WorkspaceRef) -> list[ListeningPort]:
        """See `ExecRuntime.ports`."""
        check_ref(ref)
        try:
            _, printed = await self.answer(ref, ["/bin/sh", "-c", _LISTENING], _PORTS_S)
        except ApiError as error:
            await self._explain_absence(ref)
            raise _refusal(error, "to start a process in the workspace") from error
        except ApiUnreachableError as error:
            raise driver_error(error) from error
        except TimeoutError as error:
            raise RuntimeUnavailableError("The node does not start the process.", reason="ExecFailed") from error
        return reachable_ports(listeners(printed.decode("ascii", "replace")))

    async def close(self) -> None:
        """Close every stream."""
        await asyncio.gather(*(stream.close() for stream in list(self._streams)), return_exceptions=True)

    def _place(self, ref: WorkspaceRef) -> tuple[str, str]:
        return namespace_of(self._options.namespace_prefix, ref.user_id), workspace_name(ref.environment_id)

    async def _end(self, namespace: str, pod: str, session: Session) -> None:
        try:
            await self._run(namespace, pod, session.ending, _END_S)
        except ApiError as error:
            # A pod that is gone has taken its processes along.
            log.info("a session in pod %s/%s was not ended: %s", namespace, pod, error)
        except (ApiUnreachableError, TimeoutError) as error:
            log.warning("a session in pod %s/%s may still run: %r", namespace, pod, error)

    async def _run(self, namespace: str, pod: str, argv: Sequence[str], seconds: float) -> tuple[int, bytes]:
        status, printed = b"", b""
        async with asyncio.timeout(seconds):
            socket = await self._sockets.open(namespace, pod, argv, tty=False)
            try:
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.PING:
                        await socket.pong(message.data)
                    elif message.type is aiohttp.WSMsgType.BINARY and message.data:
                        if message.data[0] == STATUS:
                            status += message.data[1:]
                        elif message.data[0] == STDOUT and len(printed) < _ANSWER_BYTES:
                            printed += message.data[1:]
            finally:
                await socket.close()
        return Ending(status).code if status else KILLED, printed

    async def _explain_absence(self, ref: WorkspaceRef) -> None:
        """Raise when there is no workspace, or none that runs."""
        namespace, name = self._place(ref)
        try:
            pod = await self._api.find("pods", namespace, name)
            record = None if pod is not None else await self._api.find("configmaps", namespace, name)
        except (ApiError, ApiUnreachableError) as error:
            raise driver_error(error) from error
        if pod is None and record is None:
            raise WorkspaceNotFoundError("There is no such workspace.")
        if pod is None or is_over(pod) or not is_ready(pod):
            raise WorkspaceNotRunningError("The workspace is not running.")


def _refusal(error: ApiError, what: str) -> DriverError:
    if error.status in (401, 403, 429):
        return driver_error(error)
    return RuntimeUnavailableError(f"The node refuses {what} (HTTP {error.status}).", reason="ExecFailed")
