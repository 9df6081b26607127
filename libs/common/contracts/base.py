"""What all event data has in common."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class EventData(BaseModel):
    """Base of all event data. `TYPE` is `<aggregate>.<event>.v<N>`; fields unknown to this version are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    TYPE: ClassVar[str]
    AGGREGATE_FIELD: ClassVar[str] = "environment_id"

    @property
    def aggregate_id(self) -> str:
        """What the event is about: the `subject` of its envelope, the third token of its NATS subject."""
        about: str = getattr(self, self.AGGREGATE_FIELD)
        return about
