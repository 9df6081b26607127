"""The few lines of shell that run inside a workspace: how a process starts there, and how its session ends.

Closing an exec's connection ends nothing: the process and its children run on with nobody to talk to. And the node
reports an end only once every child has let go of the output, a forgotten background job included. So every process is
the child of `START`, which says as its first line which session it leads, and as its last one how the command ended;
and when the stream is closed, `END` runs beside it and ends that session.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from libs.runtime.kubernetes.variables import SHELL_OWNED
from libs.runtime.port import TerminalSize

# The argument is shell text made by `starting`. It travels on as a variable, so that lists of processes stay readable.
ENTER = 'export _dp_text="$1"; exec /bin/sh -c \'eval "$_dp_text"\' devpocket'

# The login profile of an image that is not ours may drop the image's own places from PATH, such as /usr/local/go/bin.
# With the size set before the command runs: the API delivers it a moment later, and a program may look at once.
START = """
unset _dp_text DEVPOCKET_STARTUP_COMMAND
IFS= read -r _dp_self </proc/$$/stat
IFS= read -r _dp_init </proc/1/stat
@PREPARE@
if [ $# -eq 0 ]; then
    for _dp_shell in "${SHELL:-/bin/bash}" /bin/bash /bin/sh; do [ -x "$_dp_shell" ] && break; done
    set -- "$_dp_shell" -l
    if [ ! -e /opt/devpocket ]; then
        case $_dp_shell in
            */bash | */sh) set -- "$_dp_shell" -lc 'PATH=$1:$PATH; exec "$0"' "$_dp_shell" "$PATH" ;;
        esac
    fi
fi
printf '%s|%s|%s\\n' @MARK@ "$_dp_self" "$_dp_init"
unset _dp_self _dp_init _dp_shell
trap : INT QUIT
"$@"
set -- $?
trap '' INT QUIT
printf '\\036%s|%s|\\n' @MARK@ "$1"
exit "$1"
"""

# Arguments: the session, its leader's start time, the start time of the pod's first process, and `session`; or, where a
# runtime makes no sessions, a process and `process`. Hangs up, gives half a second, then kills for as long as anybody
# is left, at most 2 s.
END = """
id=$1 start=$2 init=$3 kind=$4
look() {
    found=
    for entry in /proc/[0-9]*; do
        { IFS= read -r line <"$entry/stat"; } 2>/dev/null || continue
        pid=${entry#/proc/} rest=${line##*) }
        set -- $rest
        [ "$pid" = 1 ] && [ "${20}" != "$init" ] && exit 0
        [ "$pid" = "$id" ] && [ "${20}" != "$start" ] && exit 0
        [ "$1" = Z ] && continue
        if [ "$kind" = session ]; then own=$4; elif [ "$pid" = "$id" ]; then own=$id; else own=$2; fi
        [ "$own" = "$id" ] && found="$found $pid"
    done
    [ -n "$found" ]
}
look || exit 0
kill -HUP $found 2>/dev/null
kill -CONT $found 2>/dev/null
tries=0
while look && [ "$tries" -lt 10 ]; do sleep 0.05; tries=$((tries + 1)); done
tries=0
while look && [ "$tries" -lt 40 ]; do kill -KILL $found 2>/dev/null; sleep 0.05; tries=$((tries + 1)); done
exit 0
"""

# How much the workspace holds, in KiB. A volume that shares its file system with others says nothing about this one
# by its file system's use, so then the files are counted.
USED = """
set -- "$1" $(df -kP . | tail -n 1)
if [ "$3" -gt "$1" ]; then set -- $(du -skx . 2>/dev/null); echo "$1"; else echo "$4"; fi
"""

_SHELL = "/bin/sh"
_SEPARATOR = b"\x1e"
# Where these are in a process's stat line, counted after its name.
_SESSION, _STARTED = 3, 19


@dataclass(frozen=True, slots=True)
class Session:
    """A process as `START` introduced it, and all that it may start."""

    id: int
    kind: str
    started: str
    init_started: str

    @property
    def ending(self) -> list[str]:
        """The command that ends it."""
        return [_SHELL, "-c", END, "devpocket-end", str(self.id), self.started, self.init_started, self.kind]


def starting(
    mark: str, argv: Sequence[str] | None, size: TerminalSize | None, environment: Mapping[str, str]
) -> list[str]:
    """The command that starts `argv`, or the user's login shell. `size` is None without a terminal."""
    lines = [f"stty rows {size.rows} cols {size.cols} 2>/dev/null"] if size is not None else []
    lines += [f"export {name}={shlex.quote(value)}" for name, value in environment.items() if name not in SHELL_OWNED]
    lines.append(f"set -- {shlex.join(argv or ())}")
    text = START.replace("@MARK@", mark).replace("@PREPARE@", "\n".join(lines))
    return [_SHELL, "-c", ENTER, "devpocket", text]


def used_space(storage_bytes: int) -> list[str]:
    """The command that says how much the workspace holds; `storage_bytes` is how much its volume may hold."""
    # File systems take a share for themselves, and storage classes round up.
    return [_SHELL, "-c", USED, "devpocket-used", str(storage_bytes // 1024 * 5 // 4)]


def introduced(mark: str, line: bytes) -> Session | None:
    """The session that a first line speaks of; None when it is no such line."""
    words = line.decode("utf-8", "replace").strip().split("|")
    if len(words) != 3 or words[0] != mark:
        return None
    number, own = _stat(words[1])
    _, init = _stat(words[2])
    if len(own) <= _STARTED:
        return None
    kind = "session" if own[_SESSION] == number else "process"
    return Session(int(number), kind, own[_STARTED], init[_STARTED] if len(init) > _STARTED else "")


class Goodbye:
    """Finds the last line of `START` in its output, wherever chunks begin and end."""

    def __init__(self, mark: str) -> None:
        self._sign = f"\x1e{mark}|".encode()
        self._held = b""
        self.code: int | None = None

    def feed(self, data: bytes) -> bytes:
        """The output without that line. What may be its beginning is held back; `code` is set once it was there."""
        if self.code is not None:
            return b""
        data, self._held = self._held + data, b""
        found = data.find(self._sign)
        if found >= 0:
            number, end, _ = data[found + len(self._sign) :].partition(b"|")
            if end and number.isdigit():
                self.code = int(number)
            else:
                self._held = data[found:]
            return data[:found]
        at = data.rfind(_SEPARATOR, max(0, len(data) - len(self._sign) + 1))
        if at >= 0 and self._sign.startswith(data[at:]):
            self._held = data[at:]
            return data[:at]
        return data

    def rest(self) -> bytes:
        """What was held back and turned out to be output after all."""
        held, self._held = self._held, b""
        return held


def _stat(line: str) -> tuple[str, list[str]]:
    head, _, rest = line.rpartition(")")
    return head.partition(" ")[0], rest.split()
