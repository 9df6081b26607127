#!/usr/bin/env bash
# Brings a version to the cluster of kubectl's current context: deploy/scripts/deploy.sh [--overlay NAME] [VERSION]
#
# VERSION is the tag of all five images; without one they are what the overlay says. IMAGE_PREFIX names a registry
# (registry.example.org/dev), ROLLOUT_SECONDS how long each part may take (300). Each part is waited for; when one does not
# come up, this says why, and the Deployments go back to what they were.
set -euo pipefail

readonly NAMESPACE=devpocket SECRET=devpocket-secrets
readonly STORAGE=(mongodb nats redis) SERVICES=(auth envs orchestrator terminal gateway)
readonly ROLLOUT_SECONDS=${ROLLOUT_SECONDS:-300} IMAGE_PREFIX=${IMAGE_PREFIX:-}
# What is asked of the cluster: each Deployment's revision; what it says about pods that are not ready; which these are.
readonly REVISIONS='{{range .items}}{{.metadata.name}} {{index .metadata.annotations "deployment.kubernetes.io/revision"}}{{"\n"}}{{end}}'
readonly CONDITIONS='{{range .status.conditions}}{{if and (eq .status "False") .message}}  {{$pod}}: {{.message}}{{"\n"}}{{end}}{{end}}'
readonly WAITING='{{with .state.waiting}}  {{$pod}}: {{.reason}} {{.message}}{{"\n"}}{{end}}'
readonly ENDED='{{with .lastState.terminated}}  {{$pod}}: ended before, {{.reason}}, exit code {{.exitCode}}{{"\n"}}{{end}}'
readonly EACH_POD='{{range .items}}{{$pod := .metadata.name}}'
readonly REASONS="$EACH_POD$CONDITIONS{{range .status.containerStatuses}}$WAITING$ENDED{{end}}{{end}}"
readonly IS_UNREADY='{{if and (eq .type "Ready") (eq .status "False")}}{{$pod}}{{"\n"}}{{end}}'
readonly UNREADY="$EACH_POD{{range .status.conditions}}$IS_UNREADY{{end}}{{end}}"
OVERLAYS=$(cd "$(dirname "$0")/../k8s/overlays" && pwd)
overlay=production version=
declare -A before=()

say() { printf '• %s\n' "$*"; }
complain() { printf 'deploy: %s\n' "$*" >&2; }
fail() { complain "$*"; exit 1; }
in_namespace() { kubectl --namespace "$NAMESPACE" "$@"; }

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
            --overlay) overlay=${2:-}; shift 2 || fail "--overlay needs a name" ;;
            -*) fail "usage: deploy.sh [--overlay NAME] [VERSION]" ;;
            *) [ -z "$version" ] || fail "usage: deploy.sh [--overlay NAME] [VERSION]"; version=$1; shift ;;
        esac
    done
    [ -f "$OVERLAYS/$overlay/kustomization.yaml" ] || fail "there is no overlay '$overlay' in $OVERLAYS"
    [[ -z $version || $version =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$ ]] || fail "'$version' is no tag of an image"
}

# An overlay on the overlay, so that a release changes no file of the repository.
render() {
    local name
    {
        printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../%s]\n' "$overlay"
        [ -z "$version$IMAGE_PREFIX" ] || printf 'images:\n'
        for name in "${SERVICES[@]}"; do
            [ -z "$version$IMAGE_PREFIX" ] || printf '  - name: devpocket-%s\n' "$name"
            [ -z "$IMAGE_PREFIX" ] || printf '    newName: %s/devpocket-%s\n' "$IMAGE_PREFIX" "$name"
            [ -z "$version" ] || printf '    newTag: "%s"\n' "$version"
        done
    } >"$release/kustomization.yaml"
    kubectl kustomize "$release" >"$release/manifests.yaml" || fail "the overlay $overlay cannot be built"
}

check_secret() {
    local held key missing=()
    held=$(in_namespace get secret "$SECRET" --output 'go-template={{range $name, $_ := .data}}{{$name}} {{end}}') \
        || fail "the Secret $SECRET is not there: make it with deploy/scripts/update-secrets.sh"
    for key in SECRET_KEY {MONGODB,NATS,REDIS}_URL {MONGODB,NATS,REDIS}_PASSWORD; do
        grep --quiet "key: $key\$" "$release/manifests.yaml" || continue
        [[ " $held " == *" $key "* ]] || missing+=("$key")
    done
    [ "${#missing[@]}" -eq 0 ] || fail "the Secret $SECRET lacks ${missing[*]}: deploy/scripts/update-secrets.sh adds them"
}

remember() {
    local found name revision
    found=$(revisions) || fail "the Deployments cannot be read; nothing was changed"
    while read -r name revision; do
        [ -z "$name" ] || before[$name]=$revision
    done <<<"$found"
}

revisions() { in_namespace get deployments --output "go-template=$REVISIONS"; }
wait_for() { in_namespace rollout status "$1" --timeout="${ROLLOUT_SECONDS}s"; }

# What the cluster says about the pods that are not ready, and the last lines of the newest of them.
explain() {
    local pods name=${1##*/}
    complain "$1 does not come up:"
    in_namespace get pods --selector "app.kubernetes.io/name=$name" --output "go-template=$REASONS" >&2 || true
    pods=$(in_namespace get pods --selector "app.kubernetes.io/name=$name" --sort-by .metadata.creationTimestamp \
        --output "go-template=$UNREADY") || true
    [ -z "$pods" ] || in_namespace logs "$(tail -n 1 <<<"$pods")" --tail 20 >&2 || true
}

roll_back() {
    local name now
    local -A current=()
    while read -r name now; do [ -z "$name" ] || current[$name]=$now; done < <(revisions)
    for name in "${SERVICES[@]}"; do
        [ "${current[$name]:-}" != "${before[$name]:-}" ] || continue # not touched
        if [ -z "${before[$name]:-}" ]; then
            complain "$name is new here; there is nothing to go back to"
        elif in_namespace rollout undo "deployment/$name" --to-revision="${before[$name]}" >/dev/null \
            && wait_for "deployment/$name"; then
            say "$name is back at what it was"
        else
            complain "$name could not be brought back: kubectl --namespace $NAMESPACE describe deployment $name"
        fi
    done
    complain "settings, policies and servers of data stay as this release has them"
}

# One after the other, and what services stand on before them: a Deployment that waits for its database has failed after
# three minutes.
roll_out() {
    local name
    apply 'app.kubernetes.io/component notin (service, gateway)'
    for name in "${STORAGE[@]}"; do
        ! grep --quiet "^  serviceName: $name\$" "$release/manifests.yaml" || bring_up "statefulset/$name"
    done
    for name in "${SERVICES[@]}"; do
        apply "app.kubernetes.io/component in (service, gateway), app.kubernetes.io/name=$name"
        bring_up "deployment/$name"
    done
}

apply() {
    kubectl apply --filename "$release/manifests.yaml" --selector "$1" && return
    roll_back
    fail "the cluster refuses a part of the manifests"
}

bring_up() {
    if ! wait_for "$1"; then
        explain "$1"
        roll_back
        fail "${version:-the overlay $overlay} was not deployed"
    fi
    say "$1 is up"
}

parse "$@"
release=$(mktemp -d "$OVERLAYS/.release.XXXXXX")
trap 'rm -rf "$release"' EXIT
render
kubectl get namespace "$NAMESPACE" >/dev/null \
    || fail "no cluster, or no namespace $NAMESPACE in it: deploy/scripts/update-secrets.sh makes it"
check_secret
say "deploying ${version:-what is in the overlay} ($overlay) to $(kubectl config current-context 2>/dev/null || echo 'this cluster')"
kubectl apply --dry-run=server --filename "$release/manifests.yaml" >/dev/null \
    || fail "the cluster refuses the manifests; nothing was changed"
remember
roll_out
say "${version:-the overlay $overlay} is deployed"
