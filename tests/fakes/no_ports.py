"""For runtimes that tests make for something else than ports."""

from __future__ import annotations

from collections.abc import Sequence

from libs.runtime.port import ByteStream, ListeningPort, PortClosedError, WorkspaceRef


class NoPorts:
    """Nothing listens anywhere."""

    async def connect(self, ref: WorkspaceRef, port: int) -> ByteStream:
        """See the port."""
        raise PortClosedError(f"Nothing listens at port {port} of {ref.environment_id}.")

    async def ports(self, ref: WorkspaceRef) -> Sequence[ListeningPort]:
        """See the port."""
        return []
