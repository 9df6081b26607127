#!/bin/sh
# Builds the workspace images: deploy/images/build.sh [NAME…]
# IMAGE_PREFIX (devpocket) and IMAGE_TAG (latest) name them as TEMPLATE_IMAGE_PREFIX does; BASE_IMAGE (ubuntu:24.04) is
# what all of them stand on. PUSH=1 pushes them afterwards.
set -eu
here=$(dirname "$0")
prefix=${IMAGE_PREFIX:-devpocket} tag=${IMAGE_TAG:-latest}
[ $# -gt 0 ] || set -- python nodejs golang rust ubuntu
docker build --build-arg "BASE_IMAGE=${BASE_IMAGE:-ubuntu:24.04}" -t "$prefix/base:$tag" "$here/base"
for name in "$@"; do
    docker build --build-arg "WORKSPACE_BASE=$prefix/base:$tag" -t "$prefix/$name:$tag" "$here/$name"
    [ -z "${PUSH:-}" ] || docker push "$prefix/$name:$tag"
done
