# shellcheck shell=sh
# Sourced by the set-up scripts, which run in the checkout's top folder.

say() { printf 'set-up: %s\n' "$*"; }

die() {
    printf 'set-up: %s\n' "$*" >&2
    exit 1
}

# timed STEP COMMAND...: runs it and notes its seconds, from which the report tells where the time went.
timed() {
    step=$1
    shift
    began_s=$(date +%s)
    "$@"
    times=${IMQUEUE_DATA:-data}/setup_times.tsv
    mkdir -p "${times%/*}"
    [ -e "$times" ] || printf 'step\tduration_s\tended_at\n' >"$times"
    printf '%s\t%s\t%s\n' "$step" "$(($(date +%s) - began_s))" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >>"$times"
}

# True where Debian packages can be installed without asking anyone.
may_apt() {
    [ -e /etc/debian_version ] && command -v apt-get >/dev/null || return 1
    [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null
}

apt() {
    if [ "$(id -u)" = 0 ]; then sh lib/setup/apt.sh "$@"; else sudo -n sh lib/setup/apt.sh "$@"; fi
}
