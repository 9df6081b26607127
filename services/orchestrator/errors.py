"""What can go wrong with a cluster, with the API's messages. Pure."""

from __future__ import annotations

from libs.common.errors import DevPocketError, ErrorKind


class ClusterNotFoundError(DevPocketError):
    """There is none of this name."""

    kind = ErrorKind.NOT_FOUND
    code = "cluster_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no cluster {name!r}")


class ClusterExistsError(DevPocketError):
    """The name is taken."""

    kind = ErrorKind.CONFLICT
    code = "cluster_exists"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is a cluster {name!r} already; update it, or take another name")


class ClusterInvalidError(DevPocketError):
    """The name, region or kubeconfig cannot be used."""

    kind = ErrorKind.UNPROCESSABLE
    code = "cluster_invalid"


class ClusterUnusableError(DevPocketError):
    """The cluster does not answer, or refuses the credentials."""

    kind = ErrorKind.UNPROCESSABLE
    code = "cluster_unusable"


class ClusterInUseError(DevPocketError):
    """Environments live on it."""

    kind = ErrorKind.CONFLICT
    code = "cluster_in_use"


class ClusterFixedError(DevPocketError):
    """It comes from the settings."""

    kind = ErrorKind.CONFLICT
    code = "cluster_fixed"


class ClusterConflictError(DevPocketError):
    """Too many writers at once; the same request will work in a moment."""

    kind = ErrorKind.CONFLICT
    code = "cluster_conflict"

    def __init__(self) -> None:
        super().__init__("The cluster was changed by somebody else at the same time, please try again")
