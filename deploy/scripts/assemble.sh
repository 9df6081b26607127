#!/bin/sh
# Puts the code of one service into a folder, and nothing that it does not import: assemble.sh SERVICE SOURCE TARGET
# `cli` is the devpocket command, which speaks for all of them.
set -eu
service=$1 source=$2 target=$3
case "$service" in
    auth | envs) libs=common services=$service ;;
    orchestrator | terminal) libs="common runtime" services=$service ;;
    cli) libs="common runtime cli" services="auth envs orchestrator terminal" ;;
    *)
        echo "say which one: --build-arg SERVICE=auth|envs|orchestrator|terminal|cli" >&2
        exit 1
        ;;
esac
mkdir -p "$target/libs" "$target/services"
cp "$source/libs/__init__.py" "$target/libs/"
cp "$source/services/__init__.py" "$target/services/"
for name in $libs; do cp -R "$source/libs/$name" "$target/libs/$name"; done
for name in $services; do cp -R "$source/services/$name" "$target/services/$name"; done
