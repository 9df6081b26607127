#!/bin/sh
# As the original: the server alone is run as its own user.
set -e
if [ "${1:-}" = redis-server ] && [ "$(id -u)" = 0 ]; then
    chown -R redis .
    exec setpriv --reuid redis --regid redis --init-groups "$0" "$@"
fi
exec "$@"
