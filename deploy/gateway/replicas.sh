# Where the replicas of the services are, for nginx.conf to include: start.sh reads this file.
# Replicas come and go, but nginx looks names up only when it reads its configuration. So the names are looked up here, and
# nginx reads again when their addresses have changed, which goes without a pause and cuts no connection.

# addresses_of NAME
addresses_of() {
    getent ahosts "$1" | while read -r address kind _; do
        case "$kind:$address" in
            STREAM:*:*) echo "[$address]" ;;
            STREAM:*) echo "$address" ;;
        esac
    done | sort -u
}

# servers_of NAME:PORT...
servers_of() {
    for upstream in "$@"; do
        for address in $(addresses_of "${upstream%:*}"); do
            echo "server $address:${upstream##*:} max_fails=3 fail_timeout=1s;"
        done
    done
}

# find_replicas LIST FOLDER: writes FOLDER/SERVICE.conf for each line "SERVICE NAME:PORT..." of LIST, and succeeds when one has
# changed. What cannot be looked up keeps the addresses it had, because the name server may be what is away; a service that
# never had any is answered for with 502.
find_replicas() {
    changed=1
    mkdir -p "$2"
    while read -r service upstreams; do
        file=$2/$service.conf
        known=$(cat "$file" 2>/dev/null) || known=
        # shellcheck disable=SC2086  # several words on purpose
        servers=$(servers_of $upstreams)
        [ -n "$servers" ] || servers=${known:-server 127.0.0.1:1 down;}
        if [ "$servers" != "$known" ]; then
            echo "$servers" >"$file.next"
            mv "$file.next" "$file"
            changed=0
        fi
    done <"$1"
    return $changed
}
