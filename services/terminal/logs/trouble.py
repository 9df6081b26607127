"""What a user is told when a log cannot be read; the driver's own words are an operator's."""

from __future__ import annotations

from libs.runtime.port import DriverError

UNAVAILABLE = "unavailable"

_AWAY = "The log cannot be read: the machine your environment runs on cannot be reached right now"
_SENTENCES = {
    "ClusterUnreachable": "The log cannot be read: the cluster your environment runs on does not answer right now",
    "ClusterRemoved": "The log cannot be read: the cluster your environment ran on was taken out of service",
}


def sentence(error: Exception) -> str:
    """For people."""
    return _SENTENCES.get(error.reason, _AWAY) if isinstance(error, DriverError) else _AWAY
