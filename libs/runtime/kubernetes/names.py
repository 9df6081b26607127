"""What things are called in a cluster, and the labels and annotations by which ours are found again.

Namespace of a user: `<prefix>-<readable>-<digest>`, the digest being 80 bits of the user id's SHA-256. Names may be cut
and letters folded, so the digest keeps users apart, and the full id in an annotation proves whose it is: a namespace
that names another user is never used. Objects of an environment are called `ws-<environment id>`.
"""

from __future__ import annotations

import hashlib
import re

from libs.runtime.port import WorkspaceRef, WorkspaceRejectedError

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "devpocket"
ENVIRONMENT = "devpocket.io/environment"
USER = "devpocket.io/user"
PART = "devpocket.io/part"
GENERATION = "devpocket.io/generation"
WISH = "devpocket.io/wish"
VOLUME_UID = "devpocket.io/volume-uid"
STORAGE_BYTES = "devpocket.io/storage-bytes"
ENVIRONMENT_NAME = "devpocket.io/environment-name"
POLICY = "devpocket.io/policy"
CLAIMED = "devpocket.io/claimed"

OURS = f"{MANAGED_BY}={MANAGER}"
CONTAINER = "workspace"
SERVICE_ACCOUNT = "workspace"
HOME = "/workspace"

# Also a label value, hence 63.
_ENVIRONMENT_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_MAX_USER_ID = 256
_MAX_NAME = 60
_READABLE = 20


def check_ref(ref: WorkspaceRef) -> WorkspaceRef:
    """The ref itself when its ids can name things; raises WorkspaceRejectedError otherwise."""
    if _ENVIRONMENT_ID.fullmatch(ref.environment_id) is None:
        raise WorkspaceRejectedError(
            "An environment id is 1 to 63 letters, digits, hyphens and underscores, and starts and ends with a letter "
            "or digit.",
            reason="InvalidEnvironmentId",
        )
    if not ref.user_id or len(ref.user_id) > _MAX_USER_ID or not ref.user_id.isprintable():
        raise WorkspaceRejectedError("A user id is 1 to 256 printable characters.", reason="InvalidUserId")
    return ref


def namespace_of(prefix: str, user_id: str) -> str:
    """The namespace of a user."""
    readable = _readable(user_id)
    return "-".join(part for part in (prefix, readable, _digest(user_id, 20)) if part)


def workspace_name(environment_id: str) -> str:
    """What pod, volume, secret and record of an environment are called."""
    if _DNS_LABEL.fullmatch(environment_id) and len(environment_id) <= _MAX_NAME:
        return f"ws-{environment_id}"
    return "-".join(part for part in ("ws", _readable(environment_id), _digest(environment_id, 24)) if part)


def log_name(environment_id: str) -> str:
    """What the object that keeps the log of ended pods is called."""
    return f"{workspace_name(environment_id)}.log"


def label_value(text: str) -> str:
    """`text` when it can be a label's value, else a digest of it."""
    return text if _LABEL_VALUE.fullmatch(text) else f"sha256-{_digest(text, 40)}"


def labels_of(ref: WorkspaceRef, part: str) -> dict[str, str]:
    """Labels of an object that belongs to one environment."""
    return {
        MANAGED_BY: MANAGER,
        ENVIRONMENT: ref.environment_id,
        USER: label_value(ref.user_id),
        PART: part,
    }


def hostname_of(name: str) -> str | None:
    """The host name of an environment called `name`, when that can be one."""
    return name if _DNS_LABEL.fullmatch(name) and len(name) <= 63 else None


def _readable(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_READABLE].strip("-")


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
