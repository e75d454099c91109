#!/bin/sh
# Makes .venv hold exactly what lib/requirements.lock pins, and the lib itself. Says and does nothing when it already does.
set -eu
cd "$(dirname "$0")/../.."
. lib/setup/common.sh

stamp=.venv/.imqueue

# What .venv was made from. The folder is part of it: a venv that was moved or copied runs the old one's programs.
fingerprint() {
    pwd -P
    cksum lib/pyproject.toml lib/requirements.lock lib/setup/uv.txt
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

choose_python() {
    for python in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14}; do
        if is_new_enough "$python"; then return; fi
    done
    python=${PYTHON:-python3}
    if ! command -v "$python" >/dev/null; then
        found="there is no $python here"
        if [ -z "${PYTHON:-}" ] && may_apt; then
            say "no Python here: installing Debian's"
            apt python3 python3-venv && return
        fi
    else
        found="$python is $("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>&1 | tail -n 1)"
    fi
    die "im-queue needs Python 3.11 or newer, but $found. Install one, or name it: make env PYTHON=/path/to/python3.11"
}

# Debian's own Python comes without ensurepip, and then `python3 -m venv` leaves a half-made folder.
need_ensurepip() {
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then return; fi
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$("$python" -c 'import sys; print(sys.base_prefix)')" != /usr ] || ! command -v apt-get >/dev/null; then
        die "$python cannot make virtual environments (it has no ensurepip). Name another: make env PYTHON=/path/to/python3.11"
    fi
    if may_apt; then
        say "$python cannot make virtual environments: installing $package"
        if apt "$package"; then return; fi
    fi
    die "$python cannot make virtual environments (it has no ensurepip). Run: sudo apt-get install $package"
}

is_usable() {
    grep -qsF "$(pwd -P)/.venv" .venv/bin/activate && is_new_enough .venv/bin/python &&
        .venv/bin/python -m pip --version >/dev/null 2>&1
}

make_venv() {
    if ! is_usable; then
        choose_python
        need_ensurepip
        rm -rf .venv
        "$python" -m venv .venv
    fi
    .venv/bin/python -m pip --disable-pip-version-check install -q --require-hashes -r lib/setup/uv.txt
}

install_packages() {
    # uv does not read pip's settings; a mirror named there is the only index that some machines reach.
    mirror=$(.venv/bin/python -m pip config list | sed -n "s/^[^ ]*\.index-url='\(.*\)'$/\1/p" | head -n 1)
    if [ -n "$mirror" ]; then export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$mirror}"; fi
    uv=".venv/bin/uv pip install -q --python .venv/bin/python"
    $uv --compile-bytecode --require-hashes -r lib/requirements.lock
    $uv --no-deps --no-build-isolation -e lib
}

if [ "${CONDA_DEFAULT_ENV:-}" = im-queue ]; then exit 0; fi # environment.yml brought everything
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(fingerprint)" ]; then exit 0; fi
rm -f "$stamp"
say "Python environment in .venv (about 20 s, 1 GB)"
timed venv make_venv
timed packages install_packages
fingerprint >"$stamp"
