#!/bin/sh
# As the original: starts as root or as mongodb, and makes the first user from the environment.
set -e
if [ "${1:-}" = mongod ] && [ "$(id -u)" = 0 ]; then
    chown -R mongodb /data/db /data/configdb
    exec setpriv --reuid mongodb --regid mongodb --init-groups "$0" "$@"
fi
exec "$@"
