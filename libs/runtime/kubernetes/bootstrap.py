"""The first program of a pod: the entrypoint of our own images, or as much of it as any image with a shell allows."""

from __future__ import annotations

from libs.runtime.kubernetes.variables import STARTUP_COMMAND

_OWN = "/opt/devpocket/entrypoint.sh"

# An image of somebody else's ends at once when it is run as it is, or runs a server that wants root. So it only has to
# hold the workspace open: run the startup command with its output in the log, end at once when told to (the first
# process of a pod gets no signal that it does not handle), and collect what others leave behind (`wait` does).
# Many a login profile drops the image's own places, such as /usr/local/go/bin, from PATH, hence the one before it.
# A node replaces $ with parentheses in a pod's command, so there are none.
_BOOT = f"""
if [ -x {_OWN} ]; then
    [ ! -x /usr/bin/tini ] || exec /usr/bin/tini -- {_OWN}
    exec {_OWN}
fi
command=${{{STARTUP_COMMAND}:-}} job='' group=''
unset {STARTUP_COMMAND}
end() {{
    trap '' TERM INT HUP
    [ -z "$job" ] || kill -TERM "$group$job" 2>/dev/null
    exit 0
}}
trap end TERM INT HUP
umask 022
cd "$HOME" || cd /
if [ -n "$command" ]; then
    shell=`command -v bash` || shell=/bin/sh
    if command -v setsid >/dev/null; then group=-; set -- setsid; fi
    "$@" "$shell" -lc "PATH=\\$1:\\$PATH; shift
$command" "$shell" "$PATH" </dev/null &
    job=$!
    wait "$job"
    printf '\\036sThe startup command ended with code %s.\\n' $?
    job=''
fi
while :; do
    sleep 86400 &
    wait $!
done
"""

BOOT_COMMAND = ("/bin/sh", "-c", _BOOT.strip())
"""The `command` of every workspace's container, in place of its image's ENTRYPOINT."""
