#!/bin/sh
# The first program of a workspace, below an init: prepares /workspace once, runs the startup command with its output in
# the log, then idles until it is told to end. It writes nowhere but to /workspace, so the root may be read-only.
#
# The log has one stream; a mark at the beginning of a line says what is not plain output: \036e standard error,
# \036s a notice of ours.
job='' readers='' overdue=''

mark=$(printf '\036')
home=${HOME:-/workspace}
here=$(dirname "$0")

notice() {
    printf '%ss%s\n' "$mark" "$1"
}

# Waits for processes, at most so many seconds: what a command leaves in the background keeps its output open.
await() {
    limit=$1 overdue=''
    shift
    { sleep "$limit" && kill -USR1 $$; } >/dev/null 2>&1 &
    timer=$!
    for process in "$@"; do
        [ -n "$overdue" ] || wait "$process"
    done
    kill "$timer" 2>/dev/null
}

# Ends at once when nothing runs; the startup command gets a moment to end by itself.
end() {
    trap '' TERM INT HUP
    if [ -n "$job" ]; then
        kill -TERM "-$job" 2>/dev/null
        await 2 "$job"
        kill -KILL "-$job" 2>/dev/null
        # shellcheck disable=SC2086
        await 1 $readers
    fi
    exit 0
}

# Once in a volume's life, so that a file that its user removes stays away, and one that is there stays as it is.
prepare() {
    [ ! -e "$home/.devpocket/prepared" ] || return 0
    for file in "$here"/skeleton/.[!.]* "$here"/skeleton/*; do
        name=$(basename "$file")
        if [ -e "$file" ] && [ ! -e "$home/$name" ] && [ ! -L "$home/$name" ]; then
            cp -R "$file" "$home/$name" || return 1
        fi
    done
    mkdir -p "$home/.devpocket" && : >"$home/.devpocket/prepared"
}

# Descriptors 3 and 4 lead to the log, a whole line at a time, so that the two never mix within one; what comes from 4 is
# marked. grep gives the last line the line break that it lacks. The pipes have names only until both ends are open.
open_log() {
    for place in /dev/shm /tmp "$home/.devpocket"; do
        pipe=$place/.devpocket-log-$$
        if mkfifo -m 600 "$pipe.out" "$pipe.err" 2>/dev/null; then
            grep -a --line-buffered '' <"$pipe.out" &
            readers=$!
            grep -a --line-buffered '' <"$pipe.err" | sed -u "s/^/${mark}e/" &
            readers="$readers $!"
            exec 3>"$pipe.out" 4>"$pipe.err"
            rm -f "$pipe.out" "$pipe.err"
            return
        fi
    done
    exec 3>&1 4>&1
}

run() {
    open_log
    setsid "${SHELL:-/bin/sh}" -lc "$1" </dev/null >&3 2>&4 3>&- 4>&- &
    job=$!
    exec 3>&- 4>&-
    wait "$job"
    code=$?
    # shellcheck disable=SC2086
    await 1 $readers
    notice "The startup command ended with code $code."
    job=''
}

trap end TERM INT HUP
trap 'overdue=yes' USR1
command=${DEVPOCKET_STARTUP_COMMAND:-}
unset DEVPOCKET_STARTUP_COMMAND
umask 022
prepare || notice "The workspace could not be prepared: $home cannot be written to."
cd "$home" || cd /
notice "Starting${DEVPOCKET_ENVIRONMENT_NAME:+ $DEVPOCKET_ENVIRONMENT_NAME}."
[ -z "$command" ] || run "$command"
while :; do
    sleep 86400 &
    wait $!
done
