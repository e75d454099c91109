#!/bin/sh
# The npm packages that lib/imqueue/node pins, beside the Python packages. Says and does nothing when they are there.
# Where Node cannot be had the backends built on it are listed as missing; that is an error only under CI.
set -eu
cd "$(dirname "$0")/../.."
. lib/setup/common.sh

prefix=.venv
if [ "${CONDA_DEFAULT_ENV:-}" = im-queue ]; then prefix=$CONDA_PREFIX; fi
target=$prefix/share/imqueue/node
stamp=$target/.imqueue

fingerprint() { cksum lib/imqueue/node/package.json lib/imqueue/node/package-lock.json && node --version; }

has_node() {
    command -v node >/dev/null && command -v npm >/dev/null &&
        [ "$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -ge 18 ]
}

# npm reads the address of its registry from the reader's own settings; the lock has none. No package's scripts are run.
install_packages() {
    mkdir -p "$target"
    cp lib/imqueue/node/package.json lib/imqueue/node/package-lock.json "$target"
    (cd "$target" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error --omit-lockfile-registry-resolved) >&2
}

leave_out() {
    say "left out: the backends on Node ($1). To have them:"
    if [ -e /etc/debian_version ]; then say "    sudo sh lib/setup/apt.sh nodejs npm"; fi
    say "    or get Node 18 or newer with npm, and then: make node"
    [ -z "${CI:-}${IMQUEUE_REQUIRE:-}" ] || die "and under CI nothing may be left out"
    exit 0
}

if ! has_node && may_apt; then
    say "installing nodejs npm (about a minute)"
    timed "install node" apt nodejs npm || true
fi
has_node || leave_out "there is no Node 18 or newer with npm"
if [ "$(cat "$stamp" 2>/dev/null)" = "$(fingerprint)" ]; then exit 0; fi
rm -f "$stamp"
say "npm packages in $target (about 10 s, 65 MB)"
timed "npm packages" install_packages || leave_out "npm could not install its packages"
fingerprint >"$stamp"
