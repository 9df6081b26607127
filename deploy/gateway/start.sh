#!/bin/sh
# Starts nginx: with TLS where a certificate is mounted, with the limits that the environment names, and with the replicas that
# there are. It writes to /tmp alone, so that the root file system may be read-only and the user anybody.
set -eu

home=$(dirname "$0")
temp=${TMPDIR:-/tmp}
certificate=$home/tls/tls.crt
key=$home/tls/tls.key
configuration=$temp/nginx.conf
replicas=$temp/upstreams
leaving=$temp/leaving
. "$home/replicas.sh"

fail() {
    echo "gateway: $*" >&2
    exit 1
}

# number NAME DEFAULT
number() {
    eval "value=\${$1:-$2}"
    case $value in *[!0-9]*) fail "$1 is '$value'; it is a number" ;; esac
    echo "$value"
}

# Which of the rendered files suits. Half a certificate, or one that may not be read, must not end in plain HTTP.
variant() {
    if [ ! -e "$certificate" ] && [ ! -e "$key" ]; then
        echo nginx.conf
        return
    fi
    for file in "$certificate" "$key"; do
        [ -r "$file" ] || fail "$file is missing, or user $(id -u) may not read it"
    done
    version=$(nginx -v 2>&1 | sed 's|.*nginx/\([0-9.]*\).*|\1|')
    if [ "$(printf '%s\n' 1.25.1 "$version" | sort -V | head -n 1)" = 1.25.1 ]; then
        echo nginx-tls.conf
    else
        echo nginx-tls-before-1.25.conf
    fi
}

# The numbers of the rendered file are defaults.
configure() {
    rendered=$1
    port=$(number GATEWAY_TLS_PORT 443)
    suffix=:$port
    [ "$port" != 443 ] || suffix=
    rate=$(number GATEWAY_RATE_LIMIT 100)
    connections=$(number GATEWAY_CONNECTION_LIMIT 1000)
    set -- -e "s|https://\$host[:0-9]*\\\$request_uri|https://\$host$suffix\$request_uri|"
    if [ "$rate" -eq 0 ]; then
        set -- "$@" -e '/^ *limit_req/d'
    else
        set -- "$@" -e "s| rate=[0-9]*r/s;| rate=${rate}r/s;|" \
            -e "s| burst=[0-9]* nodelay;| burst=$((2 * rate)) nodelay;|" \
            -e "s| burst=[0-9]* delay=[0-9]*;| burst=$((10 * rate)) delay=$((2 * rate));|"
    fi
    if [ "$connections" -eq 0 ]; then
        set -- "$@" -e '/^ *limit_conn/d'
    else
        set -- "$@" -e "s|^\( *limit_conn connections\) .*|\1 $connections;|"
    fi
    sed "$@" "$home/$rendered" >"$configuration"
}

fingerprint() {
    cat "$certificate" "$key" | sha256sum
}

# nginx closes idle connections when it reads its configuration again, also one on which a request is on its way. While the file
# is there, answers have their clients connect anew. Where it is already, another reload is at it, or the gateway is to end.
reload() {
    if [ -e "$leaving" ]; then
        kill -HUP $$
        return
    fi
    touch "$leaving"
    sleep 1
    kill -HUP $$
    # Old workers go on answering for a moment.
    sleep 2
    rm -f "$leaving"
}

# Certificates are renewed while this runs; Kubernetes, too, replaces the files of a Secret. Both files have to fit, so what
# is half-way replaced is tried again.
reload_when_renewed() {
    loaded=$1
    while sleep "$every" && kill -0 $$ 2>/dev/null; do
        found=$(fingerprint 2>/dev/null) && [ "$found" != "$loaded" ] || continue
        if nginx -t -q -e stderr -c "$configuration"; then
            echo "gateway: loading the new certificate" >&2
            loaded=$found
            reload
        else
            echo "gateway: the new certificate cannot be used, going on with the old one" >&2
        fi
    done
}

reload_when_replicas_change() {
    while sleep "$lookup" && kill -0 $$ 2>/dev/null; do
        ! find_replicas "$home/upstreams" "$replicas" || reload
    done
}

# A container that was ended for being unhealthy starts again with the files of the one before.
rm -f "$leaving"
file=$(variant)
configure "$file"
if [ "$file" != nginx.conf ]; then
    every=$(number GATEWAY_TLS_CHECK_SECONDS 60)
    [ "$every" -gt 0 ] || fail "GATEWAY_TLS_CHECK_SECONDS is 0; it is a number of seconds"
    loaded=$(fingerprint)
    # $$ is this shell also in there, and nginx takes its place.
    reload_when_renewed "$loaded" &
fi
lookup=$(number GATEWAY_LOOKUP_SECONDS 2)
[ "$lookup" -gt 0 ] || fail "GATEWAY_LOOKUP_SECONDS is 0; it is a number of seconds"
find_replicas "$home/upstreams" "$replicas" || true
reload_when_replicas_change &
exec nginx -e stderr -c "$configuration"
