#!/usr/bin/env bash
# Makes this machine able to run and test DevPocket: system programs and .venv. Quick when nothing is missing.
# With --tests also the programs that only tests run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly STAMP=.venv/.devpocket-stamp
readonly OLDEST_PYTHON="3.11"
# Debian keeps servers where a plain user's PATH does not look.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf '• %s\n' "$*"; }
fail() { printf '✗ %s\n' "$*" >&2; exit 1; }

# program -> Debian package. /usr/bin/python3 is what sandboxes see, whichever Python the services run on.
readonly PROGRAMS=(nats-server:nats-server redis-server:redis-server nginx:nginx-light bwrap:bubblewrap
    slirp4netns:slirp4netns git:git ps:procps /usr/bin/python3:python3)
# What tests run in a terminal, and what runs the JavaScript of the API guide (Debian's node has no WebSocket of its own).
readonly TEST_PROGRAMS=(/usr/bin/vim:vim /usr/bin/htop:htop /usr/bin/tmux:tmux node:nodejs node:node-ws)
# Prometheus with promtool: what deploy/monitoring is checked with. 19 MB, 96 MB installed.
readonly MONITORING_PROGRAMS=(promtool:prometheus)

missing_packages() {
    local pair
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || printf '%s\n' "${pair##*:}"
    done
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

can_install() {
    command -v apt-get >/dev/null || return 1
    [ "$(id -u)" -eq 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }
}

# Debian starts a server as soon as its package is installed, unless this file says no. Ours are started by the stack.
forbid_services() {
    [ -e /usr/sbin/policy-rc.d ] && return
    printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
    as_root chmod 755 /usr/sbin/policy-rc.d
    trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends "$@"
}

install_packages() {
    if ! can_install; then
        fail "please install these packages, then try again (this needs root): $*
  on Debian or Ubuntu: apt-get install --no-install-recommends $*"
    fi
    say "installing system packages: $*"
    forbid_services
    local log
    log=$(mktemp)
    # The package lists may be missing, or too old to find a file in the archive.
    if ! apt_install "$@" >"$log" 2>&1; then
        if ! { as_root apt-get update --quiet=2 && apt_install "$@"; } >"$log" 2>&1; then
            cat "$log" >&2
            rm -f "$log"
            fail "the packages could not be installed, see above"
        fi
    fi
    rm -f "$log"
}

new_enough() {
    "$1" -c "import sys; sys.exit(sys.version_info < tuple(map(int, '$OLDEST_PYTHON'.split('.'))))" 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null && new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# Debian splits the means to make a venv off; each version of Python has its own package.
missing_python_packages() {
    local python
    if ! python=$(find_python); then
        printf '%s\n' python3 python3-venv
    elif ! new_enough .venv/bin/python && ! "$python" -c "import ensurepip, venv" 2>/dev/null; then
        "$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
    fi
}

ensure_packages() {
    local packages
    mapfile -t packages < <(missing_packages "${PROGRAMS[@]}"; missing_python_packages)
    if [ "${#packages[@]}" -gt 0 ]; then
        install_packages $(printf '%s\n' "${packages[@]}" | sort -u)
    fi
    find_python >/dev/null || fail "Python $OLDEST_PYTHON or later is needed; set PYTHON to its path if it is not in PATH"
}

# Their tests are skipped without them.
ensure_test_packages() {
    local packages
    mapfile -t packages < <(missing_packages "${TEST_PROGRAMS[@]}" "${MONITORING_PROGRAMS[@]}")
    if [ "${#packages[@]}" -gt 0 ]; then
        (install_packages "${packages[@]}") || say "going on without: ${packages[*]}"
    fi
}

# Of everything that decides what .venv must hold.
fingerprint() {
    { pwd; cat requirements.lock pyproject.toml; } | sha256sum
}

create_venv() {
    local python
    python=$(find_python)
    say "creating .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
}

pip_install() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-compile "$@"
}

install_python_packages() {
    say "installing Python packages (about a minute the first time)"
    if ! pip_install --requirement requirements.lock 2>.venv/pip.log; then
        # Early versions of SecantusDB have been withdrawn before; everything else stays exactly as locked.
        say "the locked set cannot be installed as it is; trying a newer SecantusDB"
        grep --invert-match --ignore-case '^secantusdb==' requirements.lock >.venv/requirements.txt
        if ! { pip_install --requirement .venv/requirements.txt && pip_install --pre "SecantusDB>=0.7.0b3"; }; then
            cat .venv/pip.log >&2
            fail "the Python packages could not be installed, see above"
        fi
    fi
    pip_install --no-deps --editable .
    # pip would do it by one core only. Some files are not meant to be compiled; they do no harm.
    .venv/bin/python -m compileall -qq -j 0 .venv/lib || true
}

ensure_venv() {
    if [ -x .venv/bin/devpocket ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$(fingerprint)" ] && new_enough .venv/bin/python; then
        return
    fi
    # A venv of a Python that is gone, or moved here with the whole folder (its scripts name the old one), is made anew.
    if ! new_enough .venv/bin/python || ! grep --quiet --fixed-strings "$PWD/.venv/" .venv/bin/pip 2>/dev/null; then
        create_venv
    fi
    rm -f "$STAMP"
    install_python_packages
    fingerprint >"$STAMP"
}

ensure_packages
[ "${1:-}" != --tests ] || ensure_test_packages
ensure_venv
