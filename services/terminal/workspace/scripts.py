"""The shell that reads and writes files inside a workspace: POSIX sh and what coreutils and busybox both have.

Each runs in the workspace as its user, and talks: it says lines that begin with a mark of its own, and reads what it is
to do next from its input, so that whoever asks can decide by what is there, on the very file that was looked at. Every
script makes sure that what it opens is below the workspace after all links were followed; beyond it nothing is in
reach but the sandbox's own system.

It arrives as the first line of its own input: command lines have limits on the way into a cluster, and show in `ps`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from services.terminal.workspace.paths import STAGE, WorkspacePath

_ENTER = 'IFS= read -r text && eval "$(printf %b "$text")"'

# Arguments: the mark, the path, and what the script below takes. `.` at the end of a substitution keeps line breaks
# that belong to a name.
_COMMON = """
LC_ALL=C; export LC_ALL; unset CDPATH; umask 022
mark=$1 path=$(printf %b. "$2"); path=${path%.}; shift 2
nl='
'
format='%f|%s|%Y|%i|%y|%z'
say() { printf '%s|%s\\n' "$mark" "$1"; }
refuse() { say "refused|$1"; exit 0; }
because() {
    case $1 in
        *"No space"* | *quota* | *"too large"*) refuse full ;;
        *"name too long"*) refuse toolong ;;
        *"Not a directory"* | *"File exists"*) refuse notdir ;;
    esac
    refuse denied
}
root=$(pwd -P)
[ "$root" != / ] || refuse workspace
inside() { case $1/ in "$root"/*) ;; *) refuse outside ;; esac; }
"""

# Goes to the deepest folder of $1 that is there; `rest` is what is missing below it.
_APPROACH = """
approach() {
    full=$root${1:+/$1}; there=$full
    while [ ! -e "$there" ] && [ ! -L "$there" ]; do there=${there%/*}; done
    [ -d "$there" ] || refuse notdir
    cd "$there" 2>/dev/null || refuse denied
    inside "$(pwd -P)"
    rest=${full#"$there"}; rest=${rest#/}
}
enter() {
    approach "$1"
    [ -n "$rest" ] || return 0
    said=$(mkdir -p "./$rest" 2>&1) || because "$said"
    cd "./$rest" 2>/dev/null || refuse denied
    inside "$(pwd -P)"
    rest=
}
case $path in */*) parent=${path%/*} ;; *) parent= ;; esac
"""

# Says what is there and waits for a wish: for a file how many bytes to skip. The file stays open meanwhile.
_READ = """
[ -e "$root/$path" ] || refuse missing
real=$(readlink -f "$root/$path"; echo .); real=${real%"$nl".}
inside "$real"
if [ -d "$real" ]; then
    cd "$real" 2>/dev/null && [ -r . ] || refuse denied
    inside "$(pwd -P)"
    say "directory|$(stat -c "$format" .)"
    IFS= read -r wish || exit 0
    case $wish in
        list) exec find . ! -name . -prune -exec stat -c "$mark|%f|%s|%Y|%n|" {} + 2>/dev/null ;;
        archive) { tar -cf - .; echo "$mark|$?" >&2; } | gzip -c ;;
    esac
elif [ -f "$real" ]; then
    { command exec 3<"$real"; } 2>/dev/null || refuse denied
    opened=$(readlink /proc/self/fd/3; echo .)
    inside "${opened%"$nl".}"
    say "file|$(stat -L -c "$format" /proc/self/fd/3)"
    IFS= read -r skip || exit 0
    [ "$skip" != 0 ] || exec cat <&3
    exec tail -c "+$((skip + 1))" <&3
else
    refuse special
fi
"""

# An upload waits in a folder that is named after its process, so that those of dead ones can be told and swept away.
# It counts as complete when it ends with the seal, $1: an end of input alone may be the death of whoever sent it.
_RECEIVE = (
    f"""
seal=$1 stage=$root/{STAGE}
"""
    + """
started() {
    { IFS= read -r line </proc/$1/stat; } 2>/dev/null || return 1
    set -- ${line##*) }
    began=${20}
}
remove() { rm -rf "$1" 2>/dev/null || { chmod -R u+rwx "$1"; rm -rf "$1"; } 2>/dev/null; }
started $$ || refuse workspace
work=$stage/$$-$began
trap 'trap "" HUP INT TERM PIPE; remove "$work"; rmdir "$stage" 2>/dev/null' EXIT
trap 'exit 1' HUP INT TERM PIPE
sweep() {
    for old in "$stage"/*; do
        own=${old##*/} pid=${old##*/}; pid=${pid%%-*}
        case $pid in *[!0-9]*) continue ;; esac
        started "$pid" && [ "$pid-$began" = "$own" ] || remove "$old"
    done
}
receive() {
    for try in 1 2 3; do
        [ ! -L "$stage" ] || rm -f "$stage"
        said=$(mkdir -p "$work" 2>&1) && break
    done
    [ -d "$work" ] || because "$said"
    sweep
    said=$(cat 2>&1 >"$work/body"); code=$?
    # 153: a signal, because the file was larger than a process may write.
    [ $code != 153 ] || refuse full
    [ $code = 0 ] || because "$said"
    size=$(($(stat -c %s "$work/body") - ${#seal}))
    [ "$size" -ge 0 ] && [ "$(tail -c ${#seal} "$work/body")" = "$seal" ] || exit 0
    said=$(dd if=/dev/null of="$work/body" bs=1 seek="$size" count=0 2>&1) || because "$said"
}
"""
)

# $2: `same` when what is there must not change meanwhile, else `any`.
_STORE = """
condition=$2
settle() {
    name=${path##*/}
    "$1" "$parent"
    if [ -z "$rest" ] && [ -L "./$name" ] && [ ! -d "./$name" ]; then
        real=$(readlink -f "./$name"; echo .); real=${real%"$nl".}
        [ "$real" != . ] && [ -n "$real" ] || refuse missing
        inside "$real"
        cd "${real%/*}/" 2>/dev/null || refuse missing
        inside "$(pwd -P)"
        name=${real##*/}
    fi
    now=
    if [ -z "$rest" ] && [ -e "./$name" ]; then
        [ ! -d "./$name" ] || refuse isdir
        [ -f "./$name" ] || refuse special
        now=$(stat -c "$format" "./$name")
    fi
}
settle approach
before=$now
say "ready|$now"
receive
settle enter
[ "$condition" = any ] || [ "$now" = "$before" ] || refuse changed
if [ -n "$now" ]; then chmod "$(stat -c %a "./$name")" "$work/body"; fi
linked=
if [ "$condition" = same ] && [ -z "$now" ]; then
    ln "$work/body" "./$name" 2>/dev/null && linked=1
    [ -n "$linked" ] || [ ! -e "./$name" ] || refuse changed
fi
[ -n "$linked" ] || said=$(mv -f "$work/body" "./$name" 2>&1) || because "$said"
[ -z "$linked" ] || rm -f "$work/body"
say "done|${now:+replaced}|$(stat -c "$format" "./$name")"
"""

# All of it is unpacked beside, and what would stand in the way is looked for, before anything moves. A directory that
# is new moves in one step.
_UNPACK = """
name=${path##*/}
approach "$path"
say "ready|"
receive
mkdir "$work/tree" 2>/dev/null || refuse full
said=$(tar -xof "$work/body" -C "$work/tree" 2>&1); code=$?
if [ $code != 0 ]; then
    case $said in *"No space"* | *quota* | *"too large"*) refuse full ;; esac
    [ $code != 153 ] || refuse full
    refuse archive
fi
rm -f "$work/body"
# A folder that its owner may not write to cannot be moved.
chmod -R u+rwX "$work/tree"
clash() {
    for e in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        [ -e "$e" ] || [ -L "$e" ] || continue
        to=$2/${e##*/}
        if [ -d "$e" ] && [ ! -L "$e" ]; then
            [ ! -L "$to" ] || refuse notdir
            [ ! -e "$to" ] || [ -d "$to" ] || refuse notdir
            [ ! -d "$to" ] || clash "$e" "$to"
        elif [ -d "$to" ] && [ ! -L "$to" ]; then
            refuse isdir
        fi
    done
}
merge() {
    for e in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        [ -e "$e" ] || [ -L "$e" ] || continue
        to=$2/${e##*/}
        if [ -d "$e" ] && [ ! -L "$e" ] && [ -d "$to" ]; then
            merge "$e" "$to"
        else
            [ ! -L "$to" ] || rm -f "$to"
            said=$(mv -f "$e" "$to" 2>&1) || because "$said"
        fi
    done
}
approach "$path"
outcome=replaced
if [ -n "$rest" ]; then
    enter "$parent"
    if [ ! -e "./$name" ] && [ ! -L "./$name" ]; then
        said=$(mv -f "$work/tree" "./$name" 2>&1) || because "$said"
        outcome=
    fi
    approach "$path"
fi
if [ -n "$outcome" ]; then clash "$work/tree" .; merge "$work/tree" .; fi
say "done|$outcome|$(stat -c "$format" .)"
"""

# $1: `all` to delete a directory with what is in it.
_DELETE = """
name=${path##*/}
approach "$parent"
[ -z "$rest" ] || refuse missing
[ -e "./$name" ] || [ -L "./$name" ] || refuse missing
if [ ! -d "./$name" ] || [ -L "./$name" ]; then
    said=$(rm -f "./$name" 2>&1) || because "$said"
elif [ "$1" = all ]; then
    rm -rf "./$name" 2>/dev/null || {
        chmod -R u+rwx "./$name" 2>/dev/null
        said=$(rm -rf "./$name" 2>&1) || because "$said"
    }
else
    said=$(rmdir "./$name" 2>&1) || case $said in *"not empty"*) refuse notempty ;; *) because "$said" ;; esac
fi
say done
"""


@dataclass(frozen=True, slots=True)
class Script:
    """One run of a script: its command, and what goes into its input first. `seal` ends an upload."""

    argv: list[str]
    head: bytes
    mark: str
    seal: bytes = b""


def reading(path: WorkspacePath) -> Script:
    """Say what is at `path`, and then its content."""
    return _script(path, _READ)


def storing(path: WorkspacePath, *, unless_changed: bool) -> Script:
    """Take a file's content and put it at `path`; `unless_changed`: since it was said to be ready."""
    return _upload(path, _STORE, "same" if unless_changed else "any")


def unpacking(path: WorkspacePath) -> Script:
    """Take a tar archive and unpack it into the directory `path`."""
    return _upload(path, _UNPACK)


def deleting(path: WorkspacePath, *, recursive: bool) -> Script:
    """Delete what is at `path`, not what a link there leads to."""
    return _script(path, _APPROACH + _DELETE, "all" if recursive else "one")


def _upload(path: WorkspacePath, body: str, *arguments: str) -> Script:
    seal = secrets.token_hex(16)
    return _script(path, _APPROACH + _RECEIVE + body, seal, *arguments, seal=seal.encode())


def _script(path: WorkspacePath, body: str, *arguments: str, seal: bytes = b"") -> Script:
    mark = secrets.token_hex(8)
    text = (_COMMON + body).replace("\\", "\\\\").replace("\n", "\\n")
    argv = ["/bin/sh", "-c", _ENTER, "devpocket-files", mark, path.argument, *arguments]
    return Script(argv, f"{text}\n".encode(), mark, seal)
