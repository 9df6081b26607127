#!/bin/sh
# Takes what no service imports out of an installed set of Python packages: trim_packages.sh SITE_PACKAGES
set -eu
cd "$1"
# The official client's models and calls are generated and loaded by name; our driver speaks to the API in plain objects.
for client in kubernetes/client kubernetes/aio/client; do
    for generated in "$client/models" "$client/api"; do
        [ ! -d "$generated" ] || find "$generated" -name '*.py' ! -name __init__.py -exec rm -f {} +
    done
done
find . -type d -name tests -prune -exec rm -rf {} +
# For type checkers and compilers.
find . -type f \( -name '*.pyi' -o -name '*.c' -o -name '*.h' -o -name '*.pyx' -o -name '*.pxd' \) -exec rm -f {} +
