"""Why there is no backup, or why one is not restored. Each message is a sentence for the operator."""

from __future__ import annotations

from libs.common.errors import DevPocketError, ErrorKind


class BackupFailedError(DevPocketError):
    """No backup was made; what was written is not taken for one."""

    kind = ErrorKind.UNAVAILABLE
    code = "backup_failed"


class BadBackupError(DevPocketError):
    """What is to be restored is no complete backup, or one that this version cannot read. Nothing was touched."""

    kind = ErrorKind.UNPROCESSABLE
    code = "bad_backup"


class RestoreRefusedError(DevPocketError):
    """The target must not be written to as it is. Nothing was touched."""

    kind = ErrorKind.CONFLICT
    code = "restore_refused"


class RestoreFailedError(DevPocketError):
    """The target is half restored, says so to services that start on it, and can be restored again."""

    kind = ErrorKind.UNAVAILABLE
    code = "restore_failed"
