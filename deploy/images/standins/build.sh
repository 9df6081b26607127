#!/bin/sh
# Stand-ins for the images that our Dockerfiles and docker-compose.yaml begin with, made of Debian's packages: for machines
# that reach a Debian mirror and PyPI but no image registry, and for tests. Needs root, debootstrap and a running engine.
#
#   deploy/images/standins/build.sh [python nginx mongo nats redis]
#
# They take the very names of the originals, so never push them. They behave as our files need it and no further: the
# database is SecantusDB, NATS and Redis are Debian's. MIRROR is the Debian mirror; EXTRA_CA a certificate authority in PEM
# that the network between here and PyPI needs; DOCKER and DOCKER_BUILD_ARGS (e.g. "--network host") say how to build.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
docker=${DOCKER:-docker}
debian=devpocket-standin/debian:bookworm
[ $# -gt 0 ] || set -- python nginx mongo nats redis

name_of() {
    case "$1" in
        python) echo python:3.11-slim-bookworm ;;
        nginx) echo nginx:1.29-bookworm ;;
        mongo) echo mongo:8.0 ;;
        nats) echo nats:2.12-alpine ;;
        redis) echo redis:8-alpine ;;
        *) echo "no stand-in for $1" >&2; return 1 ;;
    esac
}

if ! $docker image inspect "$debian" >/dev/null 2>&1; then
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    # Without MIRROR from where debootstrap takes it by itself.
    debootstrap --variant=minbase --include=ca-certificates bookworm "$root/debian" ${MIRROR:+"$MIRROR"} >"$root/log" 2>&1 \
        || { tail -20 "$root/log" >&2; exit 1; }
    rm -rf "$root"/debian/var/cache/apt/archives/*.deb "$root"/debian/var/lib/apt/lists/*
    if [ -n "${EXTRA_CA:-}" ]; then
        cp "$EXTRA_CA" "$root/debian/usr/local/share/ca-certificates/extra.crt"
        chroot "$root/debian" update-ca-certificates >/dev/null
    fi
    tar -C "$root/debian" -c . | $docker import --change 'CMD ["bash"]' - "$debian" >/dev/null
    echo "$debian"
fi
for image in "$@"; do
    name=$(name_of "$image")
    # shellcheck disable=SC2086  # several words on purpose
    $docker build --quiet ${DOCKER_BUILD_ARGS:-} --build-arg "BASE=$debian" -t "$name" "$here/$image" >/dev/null
    echo "$name"
done
