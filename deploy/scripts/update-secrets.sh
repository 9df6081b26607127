#!/usr/bin/env bash
# Makes or changes the Secret that the services read: deploy/scripts/update-secrets.sh [ENV_FILE]
#
# ENV_FILE holds lines NAME=value; names are those of .env.example, and it may be a whole .env. A name that is not in it
# keeps its value; NAME= removes an optional one. What nobody has named yet is made: SECRET_KEY, the passwords of the
# servers in the cluster, and the URLs with them. MONGODB_URL, NATS_URL and REDIS_URL name servers elsewhere.
# Then whatever reads the Secret is restarted, one after the other. No value is ever shown.
set -euo pipefail

readonly NAMESPACE=devpocket SECRET=devpocket-secrets
readonly SERVERS=(MONGODB NATS REDIS)
readonly OPTIONAL=(ADMIN_EMAIL ADMIN_PASSWORD SMTP_URL GOOGLE_CLIENT_ID GOOGLE_CLIENT_SECRET OTEL_EXPORTER_OTLP_HEADERS)
readonly MIN_SECRET_KEY_CHARS=32
HERE=$(cd "$(dirname "$0")" && pwd)
declare -A given=() old=() new=()

say() { printf '• %s\n' "$*"; }
fail() { printf 'update-secrets: %s\n' "$*" >&2; exit 1; }
in_namespace() { kubectl --namespace "$NAMESPACE" "$@"; }
names() {
    printf '%s\n' SECRET_KEY "${OPTIONAL[@]}"
    printf '%s_PASSWORD\n%s_URL\n' MONGODB MONGODB NATS NATS REDIS REDIS
}
made_up() { printf 'p%s' "$(head -c 48 /dev/urandom | base64 | tr -d '+/=\n')"; }

read_file() {
    local line name value known
    known=" $(names | tr '\n' ' ')"
    while IFS= read -r line || [ -n "$line" ]; do
        line=${line%$'\r'}
        [[ $line =~ ^[[:space:]]*(export[[:space:]]+)?([A-Z0-9_]+)=(.*)$ ]] || continue
        name=${BASH_REMATCH[2]} value=${BASH_REMATCH[3]}
        if [[ $value =~ ^\"(.*)\"[[:space:]]*(#.*)?$ || $value =~ ^\'(.*)\'[[:space:]]*(#.*)?$ ]]; then
            value=${BASH_REMATCH[1]}
        else # as .env files have it: a comment begins after a space
            value=${value%%[[:space:]]#*}
            value=${value%"${value##*[![:space:]]}"}
        fi
        if [[ $known == *" $name "* ]]; then
            given[$name]=$value
        else
            say "$name is no secret: it belongs into the overlay's settings.env"
        fi
    done <"$1"
}

read_secret() {
    local found name value
    # Only "it is not there" is an answer; anything else must not look like an empty Secret, which would be filled anew.
    found=$(in_namespace get secret "$SECRET" --ignore-not-found \
        --output 'go-template={{range $name, $value := .data}}{{$name}} {{$value}}{{"\n"}}{{end}}') \
        || fail "the Secret cannot be read, so nothing was changed"
    while read -r name value; do
        [ -z "$name" ] || old[$name]=$(base64 -d <<<"$value")
    done <<<"$found"
}

url_of() { # a server in the cluster
    case $1 in
        MONGODB) printf 'mongodb://devpocket:%s@mongodb-0.mongodb:27017/?authSource=admin&replicaSet=rs0' "$2" ;;
        NATS) printf 'nats://devpocket:%s@nats:4222' "$2" ;;
        REDIS) printf 'redis://:%s@redis:6379/0' "$2" ;;
    esac
}

decide_server() {
    local server=$1 password=$1_PASSWORD url=$1_URL
    new[$password]=${given[$password]:-${old[$password]:-$(made_up)}}
    # They stand in URLs, and NATS reads what begins with a digit as a number.
    [[ ${new[$password]} =~ ^[A-Za-z][A-Za-z0-9._~-]*$ ]] \
        || fail "$password must begin with a letter and consist of letters, digits and . _ ~ -"
    if [ -n "${given[$url]:-}" ]; then
        new[$url]=${given[$url]}
    elif [ -n "${old[$url]:-}" ] && [ "${old[$url]}" != "$(url_of "$server" "${old[$password]:-}")" ]; then
        new[$url]=${old[$url]}
    else
        new[$url]=$(url_of "$server" "${new[$password]}")
    fi
}

decide() {
    local name
    new[SECRET_KEY]=${given[SECRET_KEY]:-${old[SECRET_KEY]:-$(made_up)}}
    [ "${#new[SECRET_KEY]}" -ge "$MIN_SECRET_KEY_CHARS" ] \
        || fail "SECRET_KEY needs at least $MIN_SECRET_KEY_CHARS random characters: openssl rand -base64 48"
    [ "${old[SECRET_KEY]:-${new[SECRET_KEY]}}" = "${new[SECRET_KEY]}" ] \
        || fail "SECRET_KEY is another one than the Secret holds; what that one has encrypted could not be read any more"
    for name in "${SERVERS[@]}"; do decide_server "$name"; done
    for name in "${OPTIONAL[@]}"; do
        if [ -n "${given[$name]-${old[$name]:-}}" ]; then new[$name]=${given[$name]-${old[$name]}}; fi
    done
}

changed() { [ "${old[$1]-}" != "${new[$1]-}" ]; }
has() {
    local found
    found=$(in_namespace get "$1" --ignore-not-found --output name) || fail "the cluster does not say whether $1 is there"
    [ -n "$found" ]
}

# By standard input: arguments are for everybody to see. Server-side, so that no annotation repeats the values.
write_secret() {
    local name
    {
        printf 'apiVersion: v1\nkind: Secret\ntype: Opaque\nmetadata:\n  name: %s\n  namespace: %s\n' "$SECRET" "$NAMESPACE"
        printf '  labels: {app.kubernetes.io/part-of: devpocket}\ndata:\n'
        for name in "${!new[@]}"; do printf '  %s: %s\n' "$name" "$(printf %s "${new[$name]}" | base64 | tr -d '\n')"; done
    } | in_namespace apply --server-side --force-conflicts --field-manager=devpocket-secrets --filename - >/dev/null
}

report() {
    local name something=1
    while read -r name; do
        changed "$name" || continue
        something=0
        if [ -z "${new[$name]-}" ]; then say "$name: removed"
        elif [ -n "${given[$name]:-}" ]; then say "$name: from the file"
        else say "$name: made"; fi
    done < <(names | sort)
    return "$something"
}

# MongoDB keeps its password in its data, so it is told. A run that was cut after this finds the new one at work already.
change_mongodb_password() {
    [ -n "${old[MONGODB_PASSWORD]:-}" ] && changed MONGODB_PASSWORD && has statefulset/mongodb || return 0
    say "telling MongoDB its new password"
    in_namespace exec --stdin mongodb-0 -- bash -c '
        IFS= read -r NEW_PASSWORD; export NEW_PASSWORD
        as() { mongosh --quiet -u devpocket -p "$1" --eval "$2" >/dev/null; }
        as "$NEW_PASSWORD" "db.hello().ok" 2>/dev/null || as "$MONGO_INITDB_ROOT_PASSWORD" \
            "db.getSiblingDB(\"admin\").changeUserPassword(\"devpocket\", process.env.NEW_PASSWORD)"
    ' <<<"${new[MONGODB_PASSWORD]}" || fail "MongoDB did not take its new password; nothing was changed"
}

restart() {
    local workload workloads=()
    ! changed MONGODB_PASSWORD || workloads+=(statefulset/mongodb)
    ! changed NATS_PASSWORD || workloads+=(statefulset/nats)
    ! changed REDIS_PASSWORD || workloads+=(statefulset/redis)
    workloads+=(deployment/auth deployment/envs deployment/orchestrator deployment/terminal)
    for workload in "${workloads[@]}"; do
        has "$workload" || continue
        say "restarting $workload"
        in_namespace rollout restart "$workload" >/dev/null
        in_namespace rollout status "$workload" --timeout=300s || fail "$workload does not come up with the new Secret"
    done
}

[ $# -le 1 ] || fail "usage: update-secrets.sh [ENV_FILE]"
if [ $# -eq 1 ]; then
    [ -r "$1" ] || fail "$1 cannot be read"
    read_file "$1"
fi
kubectl apply --kustomize "$HERE/../k8s/namespace" >/dev/null || fail "the cluster refuses the namespace $NAMESPACE"
read_secret
decide
if report; then
    change_mongodb_password
    write_secret || fail "the cluster refuses the Secret"
    say "the Secret $SECRET is up to date"
    restart
else
    say "nothing has changed"
fi
